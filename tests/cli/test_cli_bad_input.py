"""Bad input to the commands that match files: exit 1, one line, nothing left behind.

What is wrong inside a file is tested in test_bad_input_files.py.
"""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.data.simulation.m1 import simulate_m1

LIGHT = ["--epochs", "1", "--latent", "2", "--hidden", "8"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated files and one trained run."""
    folder = tmp_path_factory.mktemp("job")
    simulate_m1(folder / "data", "tiny", seed=1)
    arguments = ["-q", "train", str(folder / "data/unlabelled.h5ad"), "--out", str(folder / "run")]
    assert run([*arguments, *LIGHT]) == 0
    return folder


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command that must be refused: its one line, after looking that nothing was left."""

    def check(*arguments: object, keeps: bool = False) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert run(["-q", *map(str, arguments)]) == 1
        lines = [
            line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")
        ]
        assert len(lines) == 1 and lines[0].startswith("m1pipe: error: "), lines
        if not keeps:
            assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return check


def _edit(path: Path, to: Path, change) -> Path:
    data = anndata.read_h5ad(path)
    data = change(data) or data
    data.write_h5ad(to)
    return to


def _rename_genes(data: anndata.AnnData) -> None:
    data.var_names = [f"other{i}" for i in range(data.n_vars)]


def _raw_intensity(data: anndata.AnnData) -> None:
    data.uns["units"] = "intensity"
    del data.uns["target_sum"]


def _one_class(data: anndata.AnnData) -> None:
    data.obs["status"] = "healthy"


def _rare_class(data: anndata.AnnData) -> None:
    data.obs["status"] = np.where(np.arange(data.n_obs) < 3, "ill", "healthy")


def test_no_gene_in_common(job: Path, tmp_path: Path, refused) -> None:
    other = _edit(job / "data/genes.h5ad", tmp_path / "other.h5ad", _rename_genes)
    line = refused("encode", job / "run", other, "--out", tmp_path / "z.h5ad")
    assert "60 genes; found 0" in line


def test_units_that_differ(job: Path, tmp_path: Path, refused) -> None:
    other = _edit(job / "data/genes.h5ad", tmp_path / "other.h5ad", _raw_intensity)
    line = refused("encode", job / "run", other, "--out", tmp_path / "z.h5ad")
    assert "intensity" in line and "log2_tpm1" in line


def test_units_that_make_no_sense_name_the_file(job: Path, tmp_path: Path, refused) -> None:
    def contradict(data: anndata.AnnData) -> None:
        data.uns["units"] = "intensity"

    other = _edit(job / "data/genes.h5ad", tmp_path / "other.h5ad", contradict)
    line = refused("encode", job / "run", other, "--out", tmp_path / "z.h5ad")
    assert "other.h5ad" in line and "target sum" in line


def test_missing_label_column_names_those_there(job: Path, tmp_path: Path, refused) -> None:
    x = job / "data/genes.h5ad"
    line = refused("crossval", "--x", x, "--label", "statos", "--out", tmp_path / "cv")
    assert "statos" in line and "tissue" in line and "donor" in line


def test_one_class_only(job: Path, tmp_path: Path, refused) -> None:
    x = _edit(job / "data/genes.h5ad", tmp_path / "x.h5ad", _one_class)
    line = refused("crossval", "--x", x, "--label", "status", "--out", tmp_path / "cv")
    assert "healthy" in line


def test_a_class_smaller_than_the_folds(job: Path, tmp_path: Path, refused) -> None:
    x = _edit(job / "data/genes.h5ad", tmp_path / "x.h5ad", _rare_class)
    line = refused(
        "crossval", "--x", x, "--label", "status", "--group", "none", "--out", tmp_path / "cv"
    )
    assert "ill" in line and "3" in line


def test_fewer_samples_than_folds(job: Path, tmp_path: Path, refused) -> None:
    x = _edit(job / "data/genes.h5ad", tmp_path / "x.h5ad", lambda data: data[:4].copy())
    line = refused(
        "crossval", "--x", x, "--y", job / "data/isoforms.h5ad", "--group", "none",
        "--out", tmp_path / "cv",
    )  # fmt: skip
    assert "5" in line and "4" in line


def test_no_sample_in_common_names_the_first(job: Path, tmp_path: Path, refused) -> None:
    x = job / "data/unlabelled.h5ad"
    y = job / "data/isoforms.h5ad"
    line = refused("crossval", "--x", x, "--y", y, "--out", tmp_path / "cv")
    assert pd.Index(anndata.read_h5ad(x, backed="r").obs_names)[0] in line


def test_counts_under_a_gaussian_name_the_way_out(job: Path, tmp_path: Path, refused) -> None:
    def to_counts(data: anndata.AnnData) -> None:
        data.X = np.rint(2.0**data.X - 1).astype(np.float32)
        data.uns["units"] = "counts"
        del data.uns["target_sum"]

    counts = _edit(job / "data/genes.h5ad", tmp_path / "counts.h5ad", to_counts)
    line = refused("train", counts, "--out", tmp_path / "run", *LIGHT)
    assert "--log2p1" in line


@pytest.mark.parametrize("command", ["train", "encode", "fit", "predict"])
def test_an_existing_output_is_kept(job: Path, tmp_path: Path, refused, command: str) -> None:
    data = job / "data"
    here = tmp_path / "there"
    if command in ("train", "fit"):
        here.mkdir()
        (here / "model.json").write_text("precious")
    else:
        here.write_text("precious")
    if command == "predict":
        arguments = ["fit", "--x", data / "genes.h5ad", "--label", "tissue", "--head-epochs", "1",
                     "--encoder", job / "run", "--out", tmp_path / "head"]  # fmt: skip
        assert run(["-q", *map(str, arguments)]) == 0
    calls = {
        "train": ["train", data / "unlabelled.h5ad", "--out", here, *LIGHT],
        "encode": ["encode", job / "run", data / "genes.h5ad", "--out", here],
        "fit": ["fit", "--x", data / "genes.h5ad", "--label", "tissue",
                "--encoder", job / "run", "--out", here],
        "predict": ["predict", tmp_path / "head", data / "genes.h5ad", "--out", here],
    }  # fmt: skip
    assert "exists already" in refused(*calls[command])
    kept = here / "model.json" if here.is_dir() else here
    assert kept.read_text() == "precious"


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all\n" * 50])
def test_a_file_that_is_no_matrix(job: Path, tmp_path: Path, refused, content: bytes) -> None:
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(content)
    assert "broken.h5ad" in refused("encode", job / "run", broken, "--out", tmp_path / "z.h5ad")
    assert "broken.h5ad" in refused("train", broken, "--out", tmp_path / "r", *LIGHT)
    assert "broken.h5ad" in refused("crossval", "--x", broken, "--label", "a", "--out",
                                    tmp_path / "cv")  # fmt: skip


def test_infinity_in_the_middle_is_named(job: Path, tmp_path: Path, refused) -> None:
    def poison(data: anndata.AnnData) -> None:
        data.X[7, 3] = np.inf

    x = _edit(job / "data/genes.h5ad", tmp_path / "x.h5ad", poison)
    names = anndata.read_h5ad(x)
    line = refused("train", x, "--out", tmp_path / "r", *LIGHT)
    assert names.obs_names[7] in line and names.var_names[3] in line
    line = refused("encode", job / "run", x, "--out", tmp_path / "z.h5ad")
    assert names.obs_names[7] in line and names.var_names[3] in line


@pytest.mark.parametrize(("role", "value"), [("x", np.inf), ("y", np.nan)])
def test_levels_are_refused_where_they_have_no_meaning(
    job: Path, tmp_path: Path, refused, role: str, value: float
) -> None:
    def poison(data: anndata.AnnData) -> None:
        data.X[7, 3] = value

    broken = _edit(job / "data/genes.h5ad", tmp_path / "broken.h5ad", poison)
    files = {"x": job / "data/genes.h5ad", "y": job / "data/genes.h5ad", role: broken}
    given = [f"--{name}={path}" for name, path in files.items()]
    line = refused("crossval", *given, "--out", tmp_path / "cv")
    names = anndata.read_h5ad(broken)
    assert f"found {value}" in line and "broken.h5ad" in line
    assert names.obs_names[7] in line and names.var_names[3] in line


def test_a_run_that_is_none(tmp_path: Path, job: Path, refused) -> None:
    line = refused(
        "encode", tmp_path / "nothing", job / "data/genes.h5ad", "--out", tmp_path / "z.h5ad"
    )
    assert "nothing" in line
