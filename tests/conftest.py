"""Fixtures shared by all tests."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import anndata

# Before torch is imported: two OpenMP threads beside another busy process are far slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ... and numba, once it works in parallel, would give torch as many as it takes itself.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

TESTS = str(Path(__file__).parent)


def pytest_configure() -> None:
    """`M1PIPE_TEST_SEED=k` draws the tests' own data by other seeds: passing is not to be luck."""
    shift = int(os.environ.get("M1PIPE_TEST_SEED", "0"))
    if shift:
        _shift_seeds(shift)


def _shift_seeds(shift: int) -> None:
    """Give every generator that a test makes another seed; the package's own keep theirs."""
    import numpy as np

    make = np.random.default_rng

    def shifted(seed: Any = None) -> np.random.Generator:
        by_a_test = sys._getframe(1).f_code.co_filename.startswith(TESTS)
        if by_a_test and isinstance(seed, int | list | tuple):
            seed = [*np.atleast_1d(seed), shift]
        return make(seed)

    np.random.default_rng = shifted


# What a skip wanted, by a word of its reason, and how to have it.
EXTRA = '.venv/bin/pip install -c constraints.txt -e ".[{}]"'
WANTED = {
    "M1PIPE_TEST_DATA": ("the real data sets", "M1PIPE_TEST_DATA=FOLDER make test"),
    "M1PIPE_TEST_SLURM": (
        "a Slurm",
        "as root: tests/slurm/up DIR; M1PIPE_TEST_SLURM=DIR/slurm.conf make test-slow",
    ),
    "shellcheck": ("shellcheck", "apt-get install shellcheck"),
    "chromium": ("chromium", "apt-get install chromium"),
    "inmoose": ("inmoose", EXTRA.format("limma")),
    "pydeseq2": ("pydeseq2", EXTRA.format("deseq2")),
    "gseapy": ("gseapy", EXTRA.format("gsea")),
    "umap": ("umap-learn", EXTRA.format("umap")),
    "optuna": ("optuna", EXTRA.format("optuna")),
    "tensorboard": ("tensorboard", EXTRA.format("tensorboard")),
    "mlflow": ("mlflow", EXTRA.format("mlflow")),
    "scanpy": ("scanpy", EXTRA.format("notebooks")),
    "snakemake": ("snakemake", EXTRA.format("snakemake")),
    "igraph": ("igraph", EXTRA.format("notebooks")),
    "extra docs": ("mkdocs", EXTRA.format("docs")),
    "package index": ("a package index", "connect to one"),
    "root reads": ("a user without rights", "run as another user than root"),
    "CUDA": ("a GPU", "run where there is one"),
    "torch before": ("a newer torch", EXTRA.format("test")),
    "SCIPY_ARRAY_API": ("scikit-learn's checks of array APIs", "SCIPY_ARRAY_API=1 make test"),
}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: Any,
) -> Generator[None, None, None]:
    """One line of what was skipped for want of what, and how to have it; before pytest's last."""
    yield
    reasons = reasons_of_skips(terminalreporter)
    if reasons:
        terminalreporter.write_line(f"skipped: {summary_of_skips(reasons)}")
    for reason in unexpected(reasons):
        terminalreporter.write_line(f"FAILED: M1PIPE_TEST_SKIPS does not list the skip: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """`M1PIPE_TEST_SKIPS='CUDA|chromium'` lists skips that are expected; others fail the run."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == 0 and unexpected(reasons_of_skips(reporter)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def reasons_of_skips(terminalreporter: Any) -> list[str]:
    """Why tests were skipped, one reason a test."""
    skipped = terminalreporter.stats.get("skipped", [])
    return [str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped]


def unexpected(reasons: Sequence[str]) -> list[str]:
    """Reasons that hold no word of `M1PIPE_TEST_SKIPS`; without this variable, none."""
    expected = os.environ.get("M1PIPE_TEST_SKIPS")
    if expected is None:
        return []
    words = [word for word in expected.split("|") if word]
    return sorted({reason for reason in reasons if not any(word in reason for word in words)})


def summary_of_skips(reasons: Sequence[str]) -> str:
    """Number, want and remedy of skipped tests, those of one want together."""
    wants = Counter(
        next((want for word, want in WANTED.items() if word in reason), (reason, None))
        for reason in reasons
    )
    told = [
        f"{n} for want of {what} ({how})" if how else f"{n}: {what}"
        for (what, how), n in wants.most_common()
    ]
    return "; ".join(told)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real expression sets; tests that need it skip where it is not given."""
    folder = os.environ.get("M1PIPE_TEST_DATA")
    if not folder:
        pytest.skip("M1PIPE_TEST_DATA is not set: it names the folder with the real data sets")
    return Path(folder)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-processes use one thread, so that results do not depend on the machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def expression() -> "Callable[..., anndata.AnnData]":
    """Maker of small expression sets with four planted factors, on a log scale or as counts."""
    import anndata
    import numpy as np
    import pandas as pd

    def make(
        n: int = 240, p: int = 40, *, seed: int = 0, counts: bool = False
    ) -> "anndata.AnnData":
        loadings = np.random.default_rng(99).normal(size=(4, p))
        rng = np.random.default_rng(seed)
        factors = rng.normal(size=(n, 4))
        log_level = 5 + factors @ loadings + 0.5 * rng.normal(size=(n, p))
        obs = pd.DataFrame(
            {
                "tissue": np.where(factors[:, 0] > 0, "Liver", "Brain"),
                "donor": [f"d{i % 40}" for i in range(n)],
                "factor": factors[:, 1],
            },
            index=[f"s{seed}_{i}" for i in range(n)],
        )
        var = pd.DataFrame(
            {"symbol": [f"SYM{j}" for j in range(p)]},
            index=[f"ENSG{j + 1:011d}" for j in range(p)],
        )
        linear = np.exp2(log_level)
        if counts:
            X = rng.poisson(linear * rng.uniform(2, 6, size=(n, 1)))
            uns = {"units": "counts"}
        else:
            X = np.log2(1 + 1e4 * linear / linear.sum(axis=1, keepdims=True))
            uns = {"units": "log2_normalized1", "target_sum": 1e4}
        return anndata.AnnData(X=X.astype(np.float32), obs=obs, var=var, uns=uns)

    return make


@pytest.fixture
def figures_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the drawing of their figures, which is most of what a small report takes."""
    monkeypatch.setattr("m1pipe.plots.style.svg_bytes", lambda figure: b"<svg/>")
