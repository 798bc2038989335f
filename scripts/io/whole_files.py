# SPDX-License-Identifier: Apache-2.0
"""Files that are always whole: written beside their place, and put there in one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Lend a path to write to, whose file takes the place of another once it is whole; what fails leaves that one.

    Args:
        path: where the file belongs.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
