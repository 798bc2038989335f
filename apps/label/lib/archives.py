# SPDX-License-Identifier: Apache-2.0
"""Archives that a client uploads: looked through before anything is unpacked."""

import tarfile
import zipfile
from typing import IO

from apps.common.errors import RequestError

MOST_UNPACKED = 8 * 2**30  # bytes
MOST_FILES = 20_000


def check_archive(file: IO[bytes], name: str) -> None:
    """Refuse an archive that would write outside its folder, or fill the disk.

    Args:
        file: at its start, where it is left again.
        name: of the file, by whose suffix it is unpacked.

    Raises:
        RequestError: when it is no archive, or has too much, or what leads out of it.
    """
    try:
        if name.lower().endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                sizes = [(info.filename, info.file_size, True) for info in archive.infolist()]
        else:
            with tarfile.open(fileobj=file) as archive:
                sizes = [(info.name, info.size, info.isfile() or info.isdir()) for info in archive]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise RequestError(f"{name} is not a readable archive (zip, tar): {error}") from error
    finally:
        file.seek(0)
    if len(sizes) > MOST_FILES or sum(size for _, size, _ in sizes) > MOST_UNPACKED:
        raise RequestError(f"{name} holds more than {MOST_FILES} files or {MOST_UNPACKED} bytes")
    for member, _, is_plain in sizes:
        if not is_plain or member.startswith(("/", "\\")) or ".." in member.replace("\\", "/").split("/"):
            raise RequestError(f"{name} holds {member!r:.80}, which leads out of it")
