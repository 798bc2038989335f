# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the server runs the real one, and its user keeps what the server keeps."""

import json
import re

import pytest

from tools import benchmark_serve, simulate_annotator


def test_an_object_is_brighter_than_all_else_and_lies_elsewhere_for_another_seed():
    image, tube = benchmark_serve.make_image((8, 32, 40))
    assert image[tube].min() > image[~tube].max() and not tube[:2].any() and not tube[-2:].any() and tube[4].any()
    assert (benchmark_serve.make_image((8, 32, 40), 1)[1] != tube).any()
    assert tube[tuple(benchmark_serve.middle_of(tube, 4))]


@pytest.mark.slow
def test_a_table_of_clicks_and_what_clients_get_at_once(capsys, monkeypatch):
    monkeypatch.setattr(benchmark_serve, "REPEATS", 1)
    benchmark_serve.main(["--images", "6,48,40", "1,64,64", "--backend", "torch", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"encoder alone [\d.]+ ms; decoder alone [\d.]+ ms", lines[1])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:]]
    assert [row[0] for row in rows] == ["6 x 48 x 40", "1 x 64 x 64"]
    assert all(float(cell) > 0 for cell in rows[0][1:5]) and rows[1][4:] == ["", "", ""]
    monkeypatch.setattr(benchmark_serve, "CLICKS", 4)
    benchmark_serve.main(["--clients", "2", "--backend", "torch", "--threads", "1"])
    assert "answers that differ from those of a client alone: 0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_simulated_user_leaves_a_list_to_train_on(tmp_path, capsys):
    places = ["--cache_dir", str(tmp_path / "cache"), "--keep", str(tmp_path / "kept")]
    folder = simulate_annotator.find_datalist(None, str(tmp_path / "cache"))["training"][0]["image"].split("/images")[0]
    simulate_annotator.main(["--dataset_dir", folder, "--count", "2", "--clicks", "2", "--backend", "torch", *places])
    scored = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    kept = json.loads((tmp_path / "kept" / "dataset.json").read_text())["training"]
    assert 0 < len(kept) <= len(scored) and all(item["prompts"] for item in kept)
