# SPDX-License-Identifier: Apache-2.0
"""A file is the old one or the new one, and nothing is left beside it."""

import pytest

from scripts.io.whole_files import written_whole


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with written_whole(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as unfinished:
        unfinished.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
