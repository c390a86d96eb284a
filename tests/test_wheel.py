"""The built wheel in an environment of its own: nothing is taken from the checkout.

The packages that m1pipe depends on are those of the environment that runs the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import m1pipe

CHECKOUT = Path(m1pipe.__file__).parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHECKOUT / "pyproject.toml").is_file(), reason="tests run outside a checkout"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    source = out / "source"  # without what earlier builds left in the checkout
    shutil.copytree(CHECKOUT / "m1pipe", source / "m1pipe")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    _run([sys.executable, "-m", "pip", "wheel", *flags, "-w", out, source], out)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces and umlauts, and in it an environment that holds the wheel."""
    home = tmp_path_factory.mktemp("new user") / "Eigene Dateien \u00fc"
    home.mkdir()
    _run([sys.executable, "-m", "venv", "--without-pip", home / "env"], home)
    python = home / "env" / "bin" / "python"
    quiet = ["--quiet", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *quiet]
    _run([*pip, "--no-deps", wheel], home)
    (site,) = (home / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return home


def _run(command: list[object], cwd: Path, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_is_complete_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = CHECKOUT / "m1pipe"
    wanted = {p.relative_to(CHECKOUT).as_posix() for p in package.rglob("*.py")}
    wanted |= {p.relative_to(CHECKOUT).as_posix() for p in (package / "reports").rglob("*.html")}
    assert wanted | {"m1pipe/py.typed"} <= names
    assert all(name.startswith(("m1pipe/", "m1pipe-")) for name in names)


def test_all_extras_come_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    """Every package of `[all]`, new and old ones of the environment alike, has a wheel."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "index", "versions", "numpy"], capture_output=True).returncode:
        pytest.skip("no package index can be reached")
    report = tmp_path / "report.json"
    flags = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", report]
    constraints = CHECKOUT / "constraints.txt"
    _run([*pip, "install", "--quiet", *flags, "-c", constraints, f"{wheel}[all]"], tmp_path)
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {entry["metadata"]["name"].lower().replace("_", "-") for entry in found}
    assert {"m1pipe", "numba", "umap-learn", "pydeseq2", "optuna", "onnxruntime"} <= names
    assert {"scikit-network", "gseapy"} <= names and "inmoose" not in names


def test_demo_runs_from_the_wheel(home: Path) -> None:
    """Without a home to write to, and with pandas' copy-on-write."""
    nowhere = home / "no home"
    nowhere.write_text("a file: no folder can be made in it", encoding="utf-8")
    env = {"HOME": str(nowhere / "x"), "PANDAS_COPY_ON_WRITE": "1", "NO_COLOR": "1"}
    where = "import m1pipe, pandas; print(m1pipe.__file__, pandas.options.mode.copy_on_write)"
    said = _run([home / "env" / "bin" / "python", "-c", where], home, **env)
    assert str(home / "env") in said and "True" in said
    command = [home / "env" / "bin" / "m1pipe", "demo", "--size", "tiny", "--epochs", "5"]
    said = _run([*command, "--out", "m\u00f6glich"], home, **env)
    assert (home / "m\u00f6glich" / "runs" / "isoforms" / "report.html").stat().st_size > 100_000
    assert "report.html" in said.strip().splitlines()[-1] and "\x1b[" not in said


def test_a_notebook_runs_from_the_wheel(home: Path) -> None:
    """Executed by a kernel of that environment, whose last cell says where m1pipe lies."""
    text = (CHECKOUT / "notebooks" / "08_published_faults.ipynb").read_text(encoding="utf-8")
    (home / "one.ipynb").write_text(text, encoding="utf-8")
    (home / "run.py").write_text(RUN, encoding="utf-8")
    path = os.pathsep.join([str(home / "env" / "bin"), os.environ["PATH"]])
    said = _run([home / "env" / "bin" / "python", "run.py"], home, PATH=path)
    assert str(home / "env") in said


RUN = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("one.ipynb", as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell("import m1pipe; print(m1pipe.__file__)"))
NotebookClient(notebook, kernel_name="python3", timeout=500).execute()
print(notebook.cells[-1]["outputs"][0]["text"])
"""


def test_beside_scanpy_it_lacks_nothing(home: Path) -> None:
    """Installed with --no-deps: what is there has the versions that it asks for, and goes on."""
    pytest.importorskip("scanpy", reason="scanpy is not installed")
    (home / "beside.py").write_text(BESIDE, encoding="utf-8")
    said = _run([home / "env" / "bin" / "python", "-W", "ignore", "beside.py"], home)
    assert said.split() == ["True", "X_m1", "(60,", "60)"]


BESIDE = """
from importlib.metadata import requires, version

import m1pipe, numpy as np, scanpy as sc
from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from packaging.requirements import Requirement

for need in map(Requirement, requires("m1pipe")):
    if need.marker is None:
        assert need.specifier.contains(version(need.name)), need
counts = np.random.default_rng(0).poisson(5, (60, 20)).astype("f4")
adata = sc.AnnData(counts)
sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
model = ModelConfig(n_latent=2, hidden=(4,))
encoder = m1pipe.train_encoder(adata, EncoderConfig(model=model, training=TrainingConfig(epochs=1)))
adata.obsm["X_m1"] = encoder.transform(adata)
sc.pp.neighbors(adata, use_rep="X_m1", method="gauss", transformer="sklearn")
params = adata.uns["neighbors"]["params"]
print("env" in m1pipe.__file__, params["use_rep"], adata.obsp["connectivities"].shape)
"""
