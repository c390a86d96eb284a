"""Imports point one way, light commands load no torch, and every command can say what it does."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import m1pipe
from m1pipe.cli.main import COMMANDS

PACKAGE = Path(m1pipe.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"

# Lowest first; a part may import from parts before it in this list.
LAYERS = [
    ["_version", "errors", "console", "seeds"],
    ["artefacts", "atomic", "settings"],
    ["parameters"],
    ["config"],
    ["data", "models"],
    ["io"],
    ["simulation"],
    ["plots"],
    ["training"],
    ["provenance"],
    ["encoder"],
    ["heads"],
    ["source_labels"],
    ["predictor"],
    ["evaluation", "synthesis", "sweep", "contrasts", "clustering"],
    ["figures"],
    ["estimators"],
    ["reports"],
    ["workflow"],
    ["cli"],
    ["__main__"],
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
LEAVES = {"plots"}  # take arrays and tables only


def _imports(path: Path) -> list[tuple[int, str]]:
    """(line, part of m1pipe) of every import of our own in a module, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [node.module or ""]
            if node.module == "m1pipe":
                names = [f"m1pipe.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(node.lineno, n.split(".")[1]) for n in names if n.startswith("m1pipe.")]
    return found


def _part(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    inner = parts[:2] == ("data", "simulation")  # writes files
    return parts[inner].removesuffix(".py")


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = _part(path)
    assert here in RANK, f"{here}: give the new part its place in LAYERS"
    for line, there in _imports(path):
        if there == here:
            continue
        assert there in RANK, f"{path}:{line}: unknown part {there}"
        assert RANK[there] < RANK[here], f"{path}:{line}: {here} may not import {there}"
        if here in LEAVES:
            assert RANK[there] <= RANK["config"], f"{path}:{line}: {here} stands on its own"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_is_on_the_map(path: Path) -> None:
    """Named in docs/architecture.md in the line of its folder (commands: the folder alone)."""
    where = path.relative_to(PACKAGE)
    if where.parts[0] == "cli" or path.stem.startswith("_"):
        return
    lines = ARCHITECTURE.read_text(encoding="utf-8").splitlines()
    section = ""
    for line in lines:
        if line.startswith("**"):
            section = line
        folder = where.parent.name
        in_folder = folder in section or f"`{folder}/" in line or len(where.parts) == 1
        if in_folder and (f"`{path.name}`" in line or f"/{path.name}`" in line):
            return
    pytest.fail(f"docs/architecture.md does not say what {where} answers")


def test_the_ten_questions_lead_to_files() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    asked = text[text.index("## Ten questions") : text.index("## Where is what")]
    paths = re.findall(r"`(\w+/[\w/.]+)`", asked)
    assert asked.count("?") == 10 and len(paths) >= 10
    assert not [path for path in paths if not (PACKAGE / path).exists()]


def test_the_walk_sees_imports() -> None:
    """The check above is not empty: the command group is known to import the console."""
    assert ("console" in {part for _, part in _imports(PACKAGE / "cli" / "main.py")}) is True
    assert len(MODULES) > 10


def test_data_knows_no_torch_and_models_no_files() -> None:
    unwanted = {"data": {"torch"}, "io": {"torch"}, "models": {"pandas", "h5py", "anndata"}}
    for part, forbidden in unwanted.items():
        for path in (PACKAGE / part).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                names: list[str] = []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                roots = {n.split(".")[0] for n in names}
                assert not roots & forbidden, f"{path}: imports {roots & forbidden}"


@pytest.mark.parametrize(
    "code",
    [
        "import m1pipe",
        "from m1pipe.cli.main import run; run(['--help'])",
        "from m1pipe.cli.main import run; run(['--version'])",
    ],
)
def test_light_starts_load_no_torch(code: str) -> None:
    check = f"import sys\n{code}\nassert 'torch' not in sys.modules, 'torch was loaded'"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_trackers_are_loaded_where_they_are_asked_for() -> None:
    code = (
        "import sys, m1pipe.cli.train, m1pipe.workflow.training_run\n"
        "assert not {'tensorboard', 'mlflow'} & set(sys.modules), 'a tracker was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help_with_an_example(command: str) -> None:
    from click.testing import CliRunner

    from m1pipe.cli.main import cli

    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert f"m1pipe {command}" in result.output.split("Options:")[0]


def test_public_names_exist() -> None:
    for name in m1pipe.__all__:
        assert getattr(m1pipe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = m1pipe.nonsense
