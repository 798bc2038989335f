# SPDX-License-Identifier: Apache-2.0
"""MLflow follows a run, of one process and of two, in a store of files."""

import mlflow
import pytest

from tests.e2e.bundle import SMALL, TRAIN, places, run_processes

pytestmark = pytest.mark.slow


def read(folder):
    """The one run of a store, its client, and the names of its artifacts."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/eval/mlruns.db")
    runs = [run for experiment in client.search_experiments() for run in client.search_runs([experiment.experiment_id])]
    (run,) = runs
    return run, client, {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_a_run_of_two_processes_is_followed_once_with_its_settings_and_pictures(folder, dataset):
    processes, config = 2, [TRAIN, "configs/multi_gpu.yaml"]
    given = {**SMALL, "dataset_dir": dataset, "max_epochs": 2, "tracking": "configs/mlflow.yaml", "run_name": "first"}
    results = run_processes(processes, "training", config, **given, **places(folder))
    assert [result.code for result in results] == [0] * processes, results[0].err
    run, client, artifacts = read(folder)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert {"dice/click_1", "dice/box", "memory_resident_gib", "gradient_norm", "lr_group_0"} <= run.data.metrics.keys()
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "iteration_loss")]
    assert steps == list(range(1, 1 + 2 * -(-6 // (SMALL["batch_size"] * processes))))
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 2]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "dice/click_1")] == [0, 1, 2]
    assert run.data.params["image_size"] == str(SMALL["image_size"])
    assert {"curves.png", "dice_by_clicks.png", "metrics.json", "validation_0.jpg"} <= artifacts


def test_monais_own_settings_follow_it_too(folder, dataset):
    (result,) = run_processes(1, "training", TRAIN, **SMALL, dataset_dir=dataset, tracking="mlflow", **places(folder))
    assert result.code == 0, result.err
    run, _, _ = read(folder)
    assert {"train_loss", "dice/click_1", "memory_resident_gib"} <= run.data.metrics.keys()
