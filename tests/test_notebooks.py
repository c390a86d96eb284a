"""The notebooks as committed; that they run is a slow test of its own (notebooks/conftest.py)."""

import ast
import json
import re
from pathlib import Path

import pytest

import m1pipe

FOLDER = Path(m1pipe.__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 300_000


def test_notebooks_are_numbered_and_the_stories_are_there() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", name) for name in names)
    assert {"01_m1_pipeline", "04_synthetic_samples", "05_conditional_vae"} <= set(names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_small_and_whole(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs and all(output["output_type"] != "error" for output in outputs)
    words = json.dumps([output for output in outputs if "image/png" not in output.get("data", {})])
    assert not re.search(r"/(tmp|home|root|work|Users)/", words)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_has_logic_of_its_own(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        lines = [line for line in cell["source"] if not line.startswith("%")]
        if cell["cell_type"] != "code" or any(line.startswith("%%") for line in cell["source"]):
            continue
        for node in ast.walk(ast.parse("".join(lines))):
            assert not isinstance(
                node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While | ast.If | ast.Try
            )
