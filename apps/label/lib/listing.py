# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder are images that clients can open, and why others are not."""

from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
HEADERS = (".mhd", ".nhdr")


def suffix_of(name: str) -> str | None:
    """Return a file name's suffix as it is written, or nothing where it is not that of an image."""
    low = name.lower()
    return next((name[-len(suffix) :] for suffix in SUFFIXES if low.endswith(suffix) and low != suffix), None)


def is_image(path: Path) -> bool:
    """Return whether a file is offered: its name is that of an image, and it is not empty."""
    return (
        path.is_file()
        and not path.name.startswith(".")
        and suffix_of(path.name) is not None
        and path.stat().st_size > 0
    )


def left_out(folder: Path) -> dict[str, list[str]]:
    """List what is in a folder and is not offered, by the reason."""
    reasons: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in ("labels", "datastore_v2.json") or is_image(path):
            continue
        if path.is_dir():
            reason = "in a folder: move its images beside the others, a DICOM series as NIfTI or by DICOMweb"
        elif path.suffix.lower() in HEADERS:
            reason = "a header whose data is another file, which clients do not fetch: save it as .nrrd or .mha"
        elif suffix_of(path.name) and path.stat().st_size == 0:
            reason = "empty"
        elif path.suffix.lower() in (".dcm", ".dicom", ".ima"):
            reason = "DICOM: convert the series to NIfTI, or give a DICOMweb server"
        else:
            reason = f"not of a kind that is read ({' '.join(SUFFIXES)})"
        reasons.setdefault(reason, []).append(path.name)
    return reasons
