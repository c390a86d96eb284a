"""A split file: every sample on one side, groups whole, strata in proportion, bytes unchanged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from m1pipe import open_matrix
from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.io.split import SplitConfig, split_matrix


@pytest.fixture
def path(tmp_path: Path, expression: Callable[..., anndata.AnnData]) -> Path:
    expression(200, 30).write_h5ad(tmp_path / "x.h5ad")
    return tmp_path / "x.h5ad"


def _split(path: Path, **settings: Any) -> tuple[anndata.AnnData, anndata.AnnData]:
    out = path.with_name("parts")
    with open_matrix(path) as matrix:
        summary = split_matrix(matrix, out, SplitConfig(**settings), force=True)
    parts = [anndata.read_h5ad(out / f"{name}.h5ad") for name in ("training", "held_out")]
    sizes = "{} training and {} held-out samples".format(*(part.n_obs for part in parts))
    assert sizes in summary
    return parts[0], parts[1]


@pytest.mark.parametrize("group", ["none", "donor"])
@pytest.mark.parametrize("stratify", [None, "tissue"])
@pytest.mark.parametrize("block_bytes", [1, 2**25])
def test_the_parts_are_the_source(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: str,
    stratify: str | None,
    block_bytes: int,
) -> None:
    monkeypatch.setattr("m1pipe.data.matrix.BLOCK_BYTES", block_bytes)
    source = anndata.read_h5ad(path)
    parts = _split(path, holdout=0.25, group=group, stratify=stratify)
    names = [name for part in parts for name in part.obs_names]
    assert sorted(names) == sorted(source.obs_names) and len(set(names)) == 200
    assert 40 <= parts[1].n_obs <= 60
    for part in parts:
        assert np.array_equal(part.X, source[part.obs_names].X)
        assert part.var["symbol"].tolist() == source.var["symbol"].tolist()
        tissues = source.obs["tissue"][part.obs_names].astype(str)
        assert part.obs["tissue"].astype(str).tolist() == tissues.tolist()
        assert part.uns["units"] == source.uns["units"] and part.uns["target_sum"] == 1e4
    if group == "donor":
        assert not set(parts[0].obs["donor"]) & set(parts[1].obs["donor"])
    if group == "none" and stratify:
        share = (source.obs["tissue"] == "Liver").mean()
        assert (parts[1].obs["tissue"] == "Liver").mean() == pytest.approx(share, abs=0.02)


def test_the_donor_column_groups_by_itself(path: Path) -> None:
    training, held_out = _split(path)
    assert not set(training.obs["donor"]) & set(held_out.obs["donor"])


def test_groups_come_out_of_the_ids(path: Path) -> None:
    training, held_out = _split(path, group=r"(\d)$")
    last = [{name[-1] for name in part.obs_names} for part in (training, held_out)]
    assert not last[0] & last[1] and all(last)


def test_the_seed_decides(path: Path) -> None:
    first, again, other = (_split(path, seed=seed)[1].obs_names.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_the_command(path: Path, tmp_path: Path, capsys: Any) -> None:
    options = ["--out", str(tmp_path / "parts"), "--group", "none", "--where", "tissue == 'Liver'"]
    assert run(["split", str(path), *options, "--holdout", "0.2"]) == 0
    n_liver = int((anndata.read_h5ad(path).obs["tissue"] == "Liver").sum())
    held = round(0.2 * n_liver)
    expected = f"{n_liver - held} training and {held} held-out samples x 30 genes\n"
    assert capsys.readouterr().out.endswith(expected)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "held_out.h5ad",
        "training.h5ad",
    ]
    assert run(["split", str(path), *options]) == 1
    assert "parts exists already" in capsys.readouterr().err
    assert run(["split", str(path), *options, "--force"]) == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--holdout", "1"], "holdout: expected a share between 0 and 1; found 1.0"),
        (["--stratify", "organ"], "stratify: expected a column of obs (tissue, donor, factor)"),
        (["--group", "organ"], "group: expected a column (tissue, donor, factor) or a regular"),
        (["--where", "tissue == 'Toe'"], "holds for none of the 200 samples"),
        (["--where", "donor == 'd3'"], "expected at least two groups to hold one out"),
    ],
)
def test_bad_input(path: Path, capsys: Any, options: list[str], reason: str) -> None:
    assert run(["split", str(path), "--out", str(path.with_name("parts")), *options]) == (
        2 if "--holdout" in options else 1
    )
    lines = [t for t in capsys.readouterr().err.splitlines() if "grouped by the column" not in t]
    assert len(lines) == 1 and reason in lines[0], lines
    assert [p.name for p in path.parent.iterdir()] == ["x.h5ad"]


def test_a_full_disk_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, start: int, rows: np.ndarray) -> None:
        raise InputError("could not be written")

    monkeypatch.setattr("m1pipe.io.writer.MatrixWriter.write", full)
    with pytest.raises(InputError, match="could not be written"):
        _split(path)
    assert [p.name for p in path.parent.iterdir()] == ["x.h5ad"]
