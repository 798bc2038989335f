# SPDX-License-Identifier: Apache-2.0
"""The benchmark command: a table and a JSON file of measured rows, and one sentence for a bad argument."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

import tools.benchmark as benchmark

ROOT = Path(__file__).parents[2]
WORKS = [name for name in benchmark.WORKS if name != benchmark.COMPILED]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One run of the real command at the smallest setting: what it printed, and what it wrote."""
    file = tmp_path_factory.mktemp("benchmark") / "rows.json"
    arguments = ["--backbones", "vitt", "--image-sizes", "64", "--repeats", "2", "--threads", "1", "--json", str(file)]
    command = [sys.executable, "-m", "tools.benchmark", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(file.read_text())


@pytest.mark.slow
def test_command_prints_a_header_and_a_markdown_table_of_every_work(measured):
    header, blank, *lines = measured[0].splitlines()
    assert "float32 matmul" in header and "1 threads" in header and "torch" in header
    assert blank == ""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(benchmark.COLUMNS)
    assert set(cells[1]) == {"---"}
    assert [row[:4] for row in cells[2:]] == [
        ["vitt", "64", work, "2" if "training" in work else "1"] for work in WORKS
    ]
    assert all(len(row) == len(cells[0]) for row in cells)


@pytest.mark.slow
def test_figures_of_the_json_are_positive_and_agree_with_each_other(measured):
    report = measured[1]
    before, after = report["matmul GFLOP/s"]
    assert before > 0 and after > 0
    assert [row["work"] for row in report["rows"]] == WORKS
    for row in report["rows"]:
        assert row["ms"] > 0 and row["MB"] > 0
        assert row["GFLOP/s"] == pytest.approx(1e3 * row["GFLOP"] / row["ms"])
        assert 0 < row["share of matmul"] == pytest.approx(row["GFLOP/s"] / ((before + after) / 2))
    training, checkpointed, full, full_checkpointed, encoding, decoding = (row["GFLOP"] for row in report["rows"])
    assert training > 2 * (encoding + decoding)  # two images, forward and backward
    assert training + 30 * decoding < full < training + 60 * decoding  # 4 rounds of 8 objects; encodes once
    assert training + 2 * encoding < checkpointed < training + 2 * encoding + 2 * decoding  # blocks once more
    assert full + 2 * encoding < full_checkpointed < full + 2 * encoding + 16 * decoding


@pytest.mark.parametrize(
    ("backbone", "image_size", "work", "gmac"),
    [
        ("vitt", 256, "encode_image", 1.86),
        ("vitt", 1024, "encode_image", 102.3),
        ("vits", 512, "encode_image", 32.41),
        ("vitt", 256, "decode", 0.146),
        ("vits", 1024, "decode", 1.845),
    ],
)
def test_arithmetic_counted_includes_attention(backbone, image_size, work, gmac):
    row = benchmark.Row(backbone, image_size, work, batch=1, repeats=1, threads=1, device="cpu")
    assert benchmark.count_flop(row) / 2e9 == pytest.approx(gmac, rel=5e-3)


def test_peak_memory_sees_what_was_freed_again():
    before = benchmark.start_memory("cpu")
    with mmap.mmap(-1, 200_000_000) as held:  # always new memory, where a heap may give old memory again
        held[::4096] = bytes(len(held[::4096]))  # touches each page
    assert 190e6 < benchmark.peak_memory("cpu") - before < 250e6
    assert benchmark.peak_memory("cpu") - benchmark.start_memory("cpu") > 150e6  # forgets the peak


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-sizes", "256", "100"], "--image-sizes are positive multiples of 16, got 100"),
        (["--image-sizes", "0"], "--image-sizes are positive multiples of 16, got 0"),
        (["--batch-size", "0"], "--batch-size is at least 1, got 0"),
        (["--repeats", "-1"], "--repeats is at least 1, got -1"),
        (["--threads", "0"], "--threads is at least 1, got 0"),
        (
            ["--json", "absent/a.json"],
            "--json absent/a.json is a folder, or lies in one that does not exist: give a file",
        ),
        (["--json", "."], "--json . is a folder, or lies in one that does not exist: give a file"),
    ],
)
def test_bad_argument_ends_with_one_sentence(arguments, message, capsys):
    assert benchmark.main(arguments) != 0
    printed = capsys.readouterr()
    assert printed.err == f"error: {message}\n"
    assert printed.out == ""


def test_device_without_a_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert benchmark.main(["--device", "cuda"]) != 0
    assert capsys.readouterr().err == (
        "error: --device cuda needs a GPU that torch can use, and finds none: give --device cpu\n"
    )


@pytest.mark.slow
def test_row_that_cannot_be_measured_is_named(monkeypatch):
    row = benchmark.Row("vitt", 64, "decode", batch=10**9, repeats=1, threads=1, device="cpu")
    with pytest.raises(
        benchmark.InputError, match=r"no decode of vitt at 64, batch 1000000000 .*give smaller"
    ) as caught:
        benchmark.run_row(row)
    assert "\n" not in str(caught.value)
