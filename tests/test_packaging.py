"""docs/packaging/meta.yaml: a recipe that says what pyproject.toml says, as bioconda wants recipes.

Its linter is no package of an index of Python; what it asks of every recipe is asked here.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest

import m1pipe

ROOT = Path(__file__).parents[1]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda's name is another

yaml = pytest.importorskip("yaml", reason="extra docs is not installed: it has yaml")


@pytest.fixture(scope="module")
def recipe() -> Any:
    text = (ROOT / "docs/packaging/meta.yaml").read_text(encoding="utf-8")
    known = {"PYTHON": "python", "pin_subpackage": lambda name, max_pin: f"{name} {max_pin}"}
    return yaml.safe_load(jinja2.Template(text, undefined=jinja2.StrictUndefined).render(known))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_it_is_this_package(recipe: Any, project: dict[str, Any]) -> None:
    here = project["project"]
    assert recipe["package"] == {"name": here["name"], "version": m1pipe.__version__}
    assert recipe["about"]["license"] == here["license"]
    assert recipe["about"]["license_file"] in here["license-files"]
    scripts = [f"{name} = {target}" for name, target in here["scripts"].items()]
    assert recipe["build"]["entry_points"] == scripts


def test_it_needs_what_pyproject_needs(recipe: Any, project: dict[str, Any]) -> None:
    wanted = {"python": project["project"]["requires-python"]}
    for line in project["project"]["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", line).groups()  # type: ignore[union-attr]
        wanted[CONDA.get(name, name)] = bounds
    run = dict(line.split(" ") for line in recipe["requirements"]["run"])
    assert run == wanted
    (build,) = project["build-system"]["requires"]
    assert build.replace(">", " >") in recipe["requirements"]["host"]


def test_it_is_as_bioconda_wants_it(recipe: Any) -> None:
    build = recipe["build"]
    assert build["number"] == 0 and build["noarch"] == "python" and build["run_exports"]
    assert "--no-deps" in build["script"] and "--no-build-isolation" in build["script"]
    assert recipe["test"]["imports"] and recipe["test"]["commands"]
    assert len(recipe["about"]["summary"]) < 80
    assert recipe["source"] == {"path": "../.."}
