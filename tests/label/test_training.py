# SPDX-License-Identifier: Apache-2.0
"""Training from the client: what it makes, what it leaves alone, and a server that is killed meanwhile."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from scripts.networks import build_network, load_weights
from scripts.networks.settings import Settings
from tests.e2e.bundle import ROOT
from tests.label.server import Server, copy_bundle, require_environment, wait_for
from tests.label.studies import make_lesions

pytestmark = pytest.mark.slow

BASE = ROOT / "models" / "efficient_sam_vitt_base.pth"
CLICK = {"foreground": [[20, 24, 0]]}
FINE_TUNE = Settings(
    image_size=128,
    align_points=False,
    adapters=[{"kind": "bottleneck", "targets": ["*"], "ratio": 0.5, "scale": 0.7}],
    classes={"lesion": [1, 2]},
    intensity_range=[10, 240],
    trained_on="lesions",
)


@pytest.fixture
def server(tmp_path):
    """A server on six pictures, whose weights are a fine-tune of a smaller network than configs/train.yaml asks for."""
    require_environment()
    make_lesions(tmp_path / "Patient #1 @x %y $z", 6)
    root = copy_bundle(tmp_path)
    torch.manual_seed(0)
    network = load_weights(build_network(FINE_TUNE), BASE)
    torch.save({"model": network.state_dict(), "settings": FINE_TUNE.state_dict()}, root / "models" / "model.pt")
    server = Server(root, str(tmp_path / "Patient #1 @x %y $z")).start()
    yield server
    server.stop()
    shutil.rmtree(tmp_path)


def save_labels(server, tmp_path, count, second_class=False):
    for n in range(count):
        image = np.asarray(Image.open(f"{server.studies}/lesion_{n}.png"))
        label = (image > 120).astype(np.uint8)
        if second_class:
            label[:10, :10] = 2
        Image.fromarray(label).save(tmp_path / "label.png")
        assert server.client.save_label(f"lesion_{n}", str(tmp_path / "label.png"))["label"] == f"lesion_{n}"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_training_serves_its_weights_and_keeps_those_before(server, tmp_path):
    models = server.root / "models"
    failed = server.train()
    assert failed["status"] == "ERROR" and "no image has a saved label yet" in " ".join(failed["details"])
    old = digest(models / "model.pt")

    save_labels(server, tmp_path, 5, second_class=True)
    code = f'$__import__("os").system("touch {tmp_path}/made_by_code")'
    hostile = dict.fromkeys(("tracking", "tracking_uri", "tracking_experiment_name", "gpus", "multi_gpu", "mask"), code)
    assert server.train(max_epochs=2, **hostile)["status"] == "DONE", server.log[-3000:]
    assert not (tmp_path / "made_by_code").exists()
    assert digest(models / "model.pt") != old == digest(models / "previous.pth")
    assert digest(models / BASE.name) == digest(BASE)
    new = torch.load(models / "model.pt", weights_only=True)["settings"]
    assert new.pop("object_diameter") > 0
    assert Settings(**new) == replace(FINE_TUNE, trained_on="labels")  # all of what training began from
    assert sorted(path.name for path in (models / "label_runs").iterdir()) == ["train_stats.json"]

    assert server.infer("lesion_5", **CLICK)[0].any()
    stats = server.client.info()["train_stats"]["efficientsam"]
    assert (stats["epoch"], stats["total_epochs"]) == (2, 2) and 0 < stats["best_metric"] <= 1
    assert stats["eval"]["key_metric_name"] == "dice/click_1" and stats["total_time"]


def test_one_label_is_enough_whatever_the_run_id_and_the_new_weights_answer(server, tmp_path):
    save_labels(server, tmp_path, 1)
    before, old = server.infer("lesion_5", **CLICK)[0], digest(server.root / "models" / "model.pt")
    # without validation the latest weights are kept, and they differ from those training began from
    assert server.train(val_split=0, run_id="run", max_epochs=10)["status"] == "DONE", server.log[-3000:]
    assert digest(server.root / "models" / "model.pt") != old
    assert (server.infer("lesion_5", **CLICK)[0] != before).any()
    assert server.client.info()["train_stats"]["efficientsam"]["best_metric"] >= 0


def test_a_server_killed_while_it_trains_loses_nothing(server, tmp_path):
    models = server.root / "models"
    save_labels(server, tmp_path, 4)
    old = digest(models / "model.pt")
    server.client.train_start("efficientsam", {"max_epochs": 50, "val_split": 0.25, "device": "cpu"})
    wait_for(lambda: server.client.info()["train_stats"]["efficientsam"].get("epoch", 0) >= 1)
    (child,) = psutil.Process(server.process.pid).children()
    server.process.kill()  # alone: what it started goes by itself
    child.wait(timeout=20)
    server.stop()
    assert digest(models / "model.pt") == old

    server.start()
    assert server.client.info()["datastore"]["completed"] == 4
    assert server.infer("lesion_5", **CLICK)[0].any()
    server.client.train_start(None, {"efficientsam": {"max_epochs": 1, "val_split": 0.25}})
    wait_for(lambda: server.client.train_status()["status"] in ("DONE", "ERROR"))
    assert server.client.train_status()["status"] == "DONE", server.log[-3000:]
    assert sorted(path.name for path in (models / "label_runs").iterdir()) == ["train_stats.json"]
