# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of a folder, of a long list and of a large picture print what they measure."""

import json
import re

import pytest

from tools import benchmark_folder, benchmark_index, benchmark_processes, benchmark_validation


def test_a_folder(tmp_path, capsys):
    benchmark_folder.main(["--count", "3", "--backends", "torch", "--threads", "1", "--cache_dir", str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r"\| torch \| ([\d.]+) \| ([\d.]+) \| (\d+)% \| \d+ \| \d+ \|", row)
    rate, encoder, share = map(float, found.groups())
    assert 0 < rate < encoder and share == pytest.approx(100 * rate / encoder, abs=2)


def test_a_long_list(capsys):
    benchmark_index.main(["--pairs", "6"])
    lines = capsys.readouterr().out.splitlines()[-2:]
    found = [re.fullmatch(r"6 pairs, (.+): [\d.]+ s, first batch [\d.]+ s, \d+ MB more", line) for line in lines]
    assert [each[1] for each in found] == ["first time", "seen again"]


def test_a_large_picture(capsys):
    benchmark_validation.main(["--width", "160", "--height", "120"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert float(re.match(r"([\d.]+) s; dice/click_1 ", line)[1]) > 0
    assert 0 < float(re.search(r"dice/box ([\d.]+)", line)[1]) <= 1


def test_several_processes(monkeypatch, capsys):
    """Starting takes 10 seconds, training .5 s an image, predicting .25 s by torch and .125 s by OpenVINO."""

    def run(layout, run_id, files, **settings):
        assert layout == "2x1" and "multi_gpu" in files[-1]
        if run_id == "training":
            assert settings["batch_size"] == 2
            return 10 + 0.5 * settings["max_epochs"] * settings["train#sampler#num_samples"], 900.0
        each = {"torch": 0.25, "openvino": 0.125}[settings["backend"]]
        return 10 + each * len(json.loads(settings["dataset_dir"].read_text())), 700.0

    monkeypatch.setattr(benchmark_processes, "run", run)
    benchmark_processes.main(["--layouts", "2x1", "--images", "2"])
    assert capsys.readouterr().out.splitlines()[-1] == "| 2x1 | 2.00 | 900 | 4.00 | 700 | 8.00 | 700 |"


@pytest.mark.slow
def test_what_stopped_several_processes_is_told():
    with pytest.raises(SystemExit, match=r"error: .*there\.png does not exist"):
        benchmark_processes.run("1x1", "inferring", benchmark_processes.PREDICT, dataset_dir="not/there.png")
