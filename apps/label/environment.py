# SPDX-License-Identifier: Apache-2.0
"""Let the server's environment use the bundle's packages: environment.py OF_THE_BUNDLE, run by the server's Python.

MONAI Label needs a few packages in older versions than the bundle. They lie in an environment of their own, which finds
everything else, torch above all, in the bundle's.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

# PyPI's torchvision cannot load its C++ library beside a torch for CPU alone. MONAI Label uses none of it, but the
# import makes fake kernels for two of its operators, which must be declared first.
DECLARE = """import torch as _torch

_library = _torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(_torch.ops.torchvision, _name):
        _library.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def use_packages_of(other: Path) -> None:
    """Make the packages of another environment of the same Python visible to this one, after its own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = (other / "lib" / version / "site-packages").resolve()
    if not packages.is_dir():
        sys.exit(f"error: {packages} does not exist: make both environments with the same Python")
    (Path(sysconfig.get_path("purelib")) / "bundle.pth").write_text(f"{packages}\n")


def mend_torchvision() -> None:
    """Declare torchvision's operators where it cannot be imported without."""
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0:
        return
    start = Path(sysconfig.get_path("purelib")) / "torchvision" / "__init__.py"
    if start.is_file() and DECLARE not in start.read_text():
        start.write_text(DECLARE + start.read_text())
        subprocess.run([sys.executable, "-c", "import torchvision"], check=True)


if __name__ == "__main__":
    use_packages_of(Path(sys.argv[1]))
    mend_torchvision()
