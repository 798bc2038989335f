# SPDX-License-Identifier: Apache-2.0
"""What the model zoo checks of a bundle, by MONAI's own commands."""

import json
import os
import subprocess
import sys

import onnx
import pytest
import torch
from monai.bundle import ConfigWorkflow

from tests.e2e.bundle import ENVIRONMENT, EVALUATE, INFERENCE, ROOT, TRAIN, places

pytestmark = pytest.mark.slow

NETWORK = ["network_def", "--meta_file", "configs/metadata.json", "--config_file", INFERENCE]
DATA_FORMAT = {  # of an input or output, as the zoo's schema has it
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {"num_channels": {"type": "integer"}, "spatial_shape": {"type": "array"}},
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "required": [
        *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version"),
        *("required_packages_version", "name", "task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {"type": "object", "additionalProperties": DATA_FORMAT},
        },
    },
}


def monai(*words):
    """Run one of MONAI's commands from the bundle's root."""
    command = [sys.executable, "-m", "monai.bundle", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metadata_follows_the_schema(folder):
    (folder / "schema.json").write_text(json.dumps(SCHEMA))  # one that is there is not downloaded
    out = monai("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", folder / "schema.json")
    assert "metadata is verified with no error" in out


def test_the_version_has_a_changelog_entry():
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    assert f"## {metadata['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{metadata["version"]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("kind", "files"), [("infer", [INFERENCE]), ("train", [TRAIN]), ("train", EVALUATE)], ids=["infer", "train", "eval"]
)
def test_every_property_of_a_workflow_is_there(trained, dataset, folder, monkeypatch, kind, files):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["monai.bundle"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    where = {name: str(path) for name, path in places(folder).items()}
    data = dataset / "images" if kind == "infer" else dataset
    workflow = ConfigWorkflow(
        config_file=files,
        workflow_type=kind,
        meta_file="configs/metadata.json",
        logging_file=False,
        **{k: v for k, v in where.items() if k != "ckpt_dir" or kind == "train"},
        **({"ckpt_path": str(trained[1] / "models" / "model.pt")} if files != [TRAIN] else {}),
        dataset_dir=str(data),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_network_answers_an_image_alone_as_the_metadata_say():
    monai("verify_net_in_out", *NETWORK, "--any", 64, "--n", 1, "--p", 1)


def test_a_trained_model_is_exported_to_torchscript_by_the_plain_command(trained, folder):
    weights = trained[1] / "models" / "model.pt"
    monai("ckpt_export", *NETWORK, "--filepath", folder / "model.ts", "--ckpt_file", weights, "--ckpt_path", weights)
    script = torch.jit.load(folder / "model.ts").eval()
    image, points = torch.rand(1, 3, 40, 48), torch.tensor([[[20.0, 30.0]]])
    for prompt in ((), (points, torch.ones(1, 1, dtype=torch.long))):
        assert script(image, *prompt).shape == (1, 1, 40, 48)


def test_a_trained_model_is_exported_to_onnx_by_the_plain_command(trained, folder):
    weights = trained[1] / "models" / "model.pt"
    monai("onnx_export", *NETWORK, "--filepath", folder / "model.onnx", "--ckpt_file", weights, "--ckpt_path", weights)
    onnx.checker.check_model(str(folder / "model.onnx"))
