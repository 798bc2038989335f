# SPDX-License-Identifier: Apache-2.0
"""What tells a file from what lies at the same place later."""

import os
from pathlib import Path

DETACHED = (".mhd", ".nhdr", ".hdr", ".img")  # headers whose numbers are in a file beside them, and such numbers


def file_state(path: str | Path) -> tuple:
    """Return what differs once a file, or a folder of DICOM files, has been changed, without reading it.

    Args:
        path: of a file, with those of its name where it is a header alone; or of a folder, with all files in it.

    Returns:
        A tuple that can be compared, hashed and written as JSON.

    Raises:
        OSError: when it does not exist or cannot be looked at.
    """
    path = Path(path)
    parts = [path]
    if path.is_dir():
        parts += sorted(path.iterdir())
    elif path.suffix.lower() in DETACHED:
        parts += sorted(other for other in path.parent.iterdir() if other.stem == path.stem and other != path)
    stats = [(part.name, part.stat()) for part in parts]
    return (os.path.abspath(path), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
