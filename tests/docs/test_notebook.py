# SPDX-License-Identifier: Apache-2.0
"""The notebook runs as it is, and shows pictures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "example.ipynb"


def texts(notebook):
    """Give what each cell printed."""
    cells = [cell.get("outputs", []) for cell in notebook.cells]
    return [text for outs in cells if (text := "".join(out.text for out in outs if out.get("name") == "stdout"))]


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_it_said(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, 4)
    said = texts(notebook)
    assert len(said) == 5 and NOTEBOOK.stat().st_size < 2_000_000
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(pictures) == 4
    assert texts(notebook)[:4] == said[:4]  # the last one tells of weights that may be there
