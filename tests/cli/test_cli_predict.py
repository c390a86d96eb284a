"""`m1pipe predict` refuses what it cannot use; what it writes is tested with `m1pipe fit`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest

from m1pipe.cli.main import run
from m1pipe.config import FitConfig, HeadConfig
from m1pipe.console import log
from m1pipe.evaluation.deploy import fit_predictor

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def model(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tissue"
    config = FitConfig(label="tissue", head=HeadConfig(hidden=(4,), epochs=2))
    fit_predictor(expression(80, 12), config=config).save(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def test_bad_input_is_one_line_and_leaves_nothing(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = expression(10, 12, seed=3)
    data.write_h5ad(tmp_path / "x.h5ad")
    data[:, :6].copy().write_h5ad(tmp_path / "half.h5ad")
    data.uns["units"] = "zscore"
    del data.uns["target_sum"]
    data.write_h5ad(tmp_path / "z.h5ad")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        ([model, "half.h5ad"], "found 6 (50.0%)"),
        ([model, "z.h5ad"], "found zscore"),
        ([model, "none.h5ad"], "none.h5ad"),
        (["nowhere", "x.h5ad"], "expected a model made by m1pipe fit; found none"),
        ([model, "x.h5ad", "--linear"], "expected predictions on a log scale"),
    ):
        chosen = [arguments[0], str(tmp_path / arguments[1]), *arguments[2:]]
        assert run(["predict", *chosen, "--out", str(tmp_path / "p.h5ad")]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("m1pipe: error: ")
        assert message in error
        assert sorted(tmp_path.iterdir()) == before


def test_an_existing_file_is_kept(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expression(10, 12, seed=3).write_h5ad(tmp_path / "x.h5ad")
    out = tmp_path / "p.h5ad"
    out.write_text("precious")
    arguments = ["predict", model, str(tmp_path / "x.h5ad"), "--out", str(out)]
    assert run(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run([*arguments, "--force"]) == 0
    assert anndata.read_h5ad(out).shape == (10, 2)
