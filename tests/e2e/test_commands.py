# SPDX-License-Identifier: Apache-2.0
"""Each command of the pages that runs the bundle ends well, run as it stands there but for its paths and its size."""

import re
import shlex

import nibabel
import numpy as np
import pytest

from tests.data.fundus import make_refuge
from tests.docs.test_commands import COMMANDS
from tests.e2e.bundle import SMALL, places, run_processes
from tests.e2e.datasets import disc, make_cells, make_decathlon, picture
from tests.files import write_nifti, write_picture

pytestmark = pytest.mark.slow

RUN = re.compile(r"(?P<by>python|torchrun .*) -m monai\.bundle run (?P<id>\w+) (?P<words>.*)")
BUNDLE = {each.values[0]: each for each in COMMANDS if RUN.match(each.values[0])}  # some stand on two pages
ELSEWHERE = {"--exported_dir": "tests/export/test_command.py", "--tracking": "tests/e2e/test_tracking.py"}
WEIGHTS = "models/efficient_sam_vitt_base.pth"


@pytest.fixture(scope="module")
def stands_for(shared, dataset, trained):
    """What each path of the pages, as a pattern, stands for here."""
    root = shared / "pages"
    write_picture(root / "picture.png", picture(disc(0, 256)))
    grid = np.indices((208, 176, 44)) - np.array([120, 96, 40])[:, None, None, None]
    ball = (grid**2).sum(0) < 8**2
    write_nifti(root / "scan.nii.gz", (60 + 90 * ball).astype(np.int16))
    volumes = make_decathlon(root / "volumes")
    for path in (volumes / "labelsTr").iterdir():  # two classes
        label = np.asarray(nibabel.load(path).dataobj)
        label[20:] *= 2
        write_nifti(path, label)
    return {
        r"(?<!\w)/data/images": dataset / "images",
        r"(?<!\w)/data/refuge": make_refuge(root / "refuge"),
        r"(?<!\w)/data/nerves": make_cells(root / "nerves"),
        r"(?<!\w)/data/\w+|<data set>|<wbc>|<set>": dataset,
        r"<hippocampus>|Task04_Hippocampus": volumes,
        r"(?:lesion|cell|nuclei)\.png|<image>": root / "picture.png",
        r"\bx,y,1\b": "120,96,1",
        r"scan\.nii\.gz": root / "scan.nii.gz",
        r"models/model_final\.pt": trained[1] / "models" / "model_final.pt",
        r"cells\.safetensors": trained[1] / "models" / "adapter.safetensors",
        r'\$name(?: "\$@")?': f"--dataset_dir {dataset}",
    }


@pytest.mark.parametrize("command", BUNDLE.values())
def test_a_command_of_a_page_ends_well(folder, stands_for, command):
    one_of = "|".join(f"({name})" for name in stands_for)
    command = re.sub(one_of, lambda found: str(list(stands_for.values())[found.lastindex - 1]), command)
    by, run_id, words = RUN.match(command).groups()
    for option, test in ELSEWHERE.items():
        if option in words:
            pytest.skip(f"{test} runs it")
    _, config, *options = shlex.split(words.replace("\\$", "$"), comments=True)
    given = dict(zip((name[2:] for name in options[::2]), options[1::2]))
    own = places(folder)
    if run_id == "training":
        own |= SMALL
        if "pretrain.yaml" in config:
            own["steps_per_epoch"] = 2
    elif run_id == "inferring":
        own = {name: own[name] for name in ("output_dir", "cache_dir")} | {"image_size": 64}
        if "adapter" not in given:
            own["ckpt_path"] = WEIGHTS
    else:
        own |= {"image_size": 64, "num_workers": 0, "ckpt_path": given.get("ckpt_path", WEIGHTS)}
    for result in run_processes(2 if by != "python" else 1, run_id, config, **{**given, **own}):
        assert result.code == 0, result.err
