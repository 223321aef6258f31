"""The notebook that compares the two endpoints, executed in its short form."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "benchmarks" / "latency_and_memory.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook with the outputs of its short form; an assertion of its own may have failed."""
    folder = tmp_path_factory.mktemp("jupyter")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("NOTEBOOK_QUICK", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        client = NotebookClient(
            notebook, timeout=800, kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        )  # fmt: skip
        asyncio.run(client.async_execute())
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stdout"
    )


def test_it_runs_to_its_end_with_its_pictures(executed: nbformat.NotebookNode) -> None:
    pictures = [
        output.data["image/png"]
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if output.output_type == "display_data"
    ]
    assert len(pictures) == 3
    assert min(map(len, pictures)) > 5_000


def test_what_it_found(executed: nbformat.NotebookNode) -> None:
    lines = [line for line in printed(executed).splitlines() if line.startswith("{")]
    results = {(item["case"], item["metric"]): item for item in map(json.loads, lines)}
    assert {case for case, metric in results if metric == "latency"} == {
        "embedded, window of 5 s",
        "embedded, window of 15 s",
        "embedded, window of 30 s",
        "embedded, update of a call",
    }
    for (_, metric), item in results.items():  # how much is saved a busy machine cannot tell
        if metric == "latency":
            assert item["saved"] == pytest.approx(1 - item["value"] / item["standard"], abs=1e-3)
    assert 20 < results["embedded", "audio held"]["value"] <= 35
    assert "texts are the same" in printed(executed)


def test_it_is_kept_as_it_should_be() -> None:
    """Every cell has a name, and code that the linter would have found fault with was not kept."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    sources = "".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "the aim is 30 %" in sources
