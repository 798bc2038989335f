# SPDX-License-Identifier: Apache-2.0
"""The zip that is released: complete, without what is not for users, and it runs from wherever it is unpacked."""

import os
import subprocess
import sys
import zipfile

import pytest

from scripts.errors import InputError
from tests.e2e.bundle import ENVIRONMENT
from tests.e2e.datasets import disc, picture
from tests.files import write_picture
from tools import release

pytestmark = pytest.mark.slow
LOAD = """
import sys
import torch
from monai.bundle import load
sys.path.insert(0, sys.argv[1] + "/efficientsam_adapter")
network = load("efficientsam_adapter", bundle_dir=sys.argv[1], key_in_ckpt="model", workflow_type="infer")
assert network.image_size == 64 and network.eval()(torch.rand(1, 3, 50, 90)).shape == (1, 1, 50, 90)
scripted, metadata, _ = load("efficientsam_adapter", bundle_dir=sys.argv[1], load_ts_module=True)
assert scripted(torch.rand(1, 3, 50, 90)).shape == (1, 1, 50, 90) and metadata["name"] == "EfficientSAM Adapter"
"""


def run(*command, cwd):
    environment = {**os.environ, **ENVIRONMENT}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def unpacked(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    release.main(["--ckpt_path", str(trained[1] / "models" / "model.pt"), "--output_dir", str(folder / "dist")])
    (packed,) = (folder / "dist").iterdir()
    assert packed.name == "efficientsam_adapter_v0.2.0.zip"
    zipfile.ZipFile(packed).extractall(folder)
    return folder


def test_it_holds_a_bundle_and_no_more(unpacked):
    bundle = unpacked / "efficientsam_adapter"
    assert {path.name for path in bundle.iterdir()} == {*release.PARTS, "models"}
    assert {path.name for path in (bundle / "models").iterdir()} == {
        *("README.md", "efficient_sam_vitt_base.pth", "model.pt", "model.ts")
    }
    assert not [path for path in bundle.rglob("*") if path.name in ("tests", "__pycache__", ".git")]


def test_monai_loads_it_from_anywhere(unpacked, tmp_path):
    run("-c", LOAD, unpacked, cwd=tmp_path)


def test_its_commands_run(unpacked, tmp_path):
    image = write_picture(tmp_path / "a.png", picture(disc(0)))
    given = ["--dataset_dir", image, "--points", "[[30,30,1]]", "--output_dir", tmp_path / "out"]
    config = ["--config_file", "configs/inference.yaml"]
    run("-m", "monai.bundle", "run", "inferring", *config, *given, cwd=unpacked / "efficientsam_adapter")
    assert (tmp_path / "out" / "a_mask.png").exists()


def test_what_the_zoo_would_refuse_is_refused(unpacked, tmp_path):
    with pytest.raises(InputError, match=r"the bundle has no configs/metadata.json"):
        release.check_bundle(tmp_path)
