# SPDX-License-Identifier: Apache-2.0
"""Pack the bundle as the model zoo and monai.bundle.load have it: one zip, with weights, without tests.

    python -m tools.release --ckpt_path models/model.pt

The zip holds a folder of the bundle's name with its configs, code, documents, ``models/model.pt`` with its network's
settings, ``models/model.ts``, and the base that training begins from. monai.bundle.load reads JSON alone: with
``workflow_type="infer", key_in_ckpt="model"`` it finds ``configs/infer.json``.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import save_net_with_metadata

from scripts.errors import InputError
from scripts.export.checks import check_torchscript
from scripts.networks import find_weights, load

ROOT = Path(__file__).parents[1]
NAME = "efficientsam_adapter"
PARTS = (
    "configs",
    "scripts",
    "docs",
    "apps",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "requirements.txt",
    "large_files_sam.yml",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "model", "logs", "bin", "node_modules")


def check_bundle(bundle: Path) -> None:
    """Check what the zoo asks of a bundle, by MONAI's own means.

    Raises:
        InputError: when something is missing, or the network does not take and give what the metadata says.
    """
    for name in ("configs/metadata.json", "configs/inference.yaml", "LICENSE", "docs/README.md", "models/model.pt"):
        if not (bundle / name).is_file():
            raise InputError(f"the bundle has no {name}")
    given = ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.yaml", "--device", "cpu"]
    command = [sys.executable, "-m", "monai.bundle", "verify_net_in_out", "network_def", *given, "--p", "1", "--n", "1"]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
    if done.returncode or "is verified with no error" not in done.stdout + done.stderr:
        raise InputError(f"verify_net_in_out failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def build(weights: str, image_size: int | None, folder: Path) -> Path:
    """Build the bundle of some weights in a folder, and give its path.

    Args:
        weights: of the network.
        image_size: of its own grid in pixels.
        folder: to write to.
    """
    bundle = folder / NAME
    for part in PARTS:
        source, target = ROOT / part, bundle / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    models = bundle / "models"
    models.mkdir()
    for path in (ROOT / "models" / "README.md", *(ROOT / "models").glob("*_base.pth")):
        shutil.copyfile(path, models / path.name)
    network = load(weights, image_size=image_size).eval().requires_grad_(False)
    torch.save({"model": network.state_dict(), "settings": network.settings.state_dict()}, models / "model.pt")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    save_net_with_metadata(torch.jit.script(network), str(models / "model.ts"), meta_values=metadata)
    config = ConfigParser.load_config_file(bundle / "configs" / "inference.yaml")
    config["bundle_root"] = "$str(scripts.cli.METADATA.parents[1])"  # wherever it is loaded from
    ConfigParser.export_config_file(config, str(bundle / "configs" / "infer.json"), indent=2)
    with torch.no_grad():
        check_torchscript(network, models, [torch.rand(1, 3, 90, 120)])
    return bundle


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        InputError: when the weights are missing or the bundle is not what the zoo asks for.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_path", help="weights; models/model.pt, else the best in models, unless given")
    parser.add_argument("--image_size", type=int, help="of weights without settings, such as the base")
    parser.add_argument("--output_dir", default="dist")
    given = parser.parse_args(argv)
    weights = given.ckpt_path or find_weights("models", None, ["model.pt"])
    version = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
    target = Path(given.output_dir) / f"{NAME}_v{version}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        bundle = build(weights, given.image_size, Path(work))
        check_bundle(bundle)
        packed = Path(work) / target.name
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(bundle.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    archive.write(path, path.relative_to(work))
        shutil.move(packed, target)
    print(f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
