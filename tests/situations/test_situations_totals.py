"""Totals of raw counts are taken over the genes of training's totals, not over the model's own."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from said import Said

from m1pipe import load_encoder
from m1pipe.cli.main import run
from m1pipe.errors import InputError, M1Warning

N, P = 120, 160


def _counts(seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    programme = np.random.default_rng(7).normal(size=(3, P))
    drive = np.exp(0.5 * rng.normal(size=(N, 3)) @ programme)
    levels = rng.gamma(0.6, 40, P) if seed == 0 else np.random.default_rng(0).gamma(0.6, 40, P)
    counts = rng.poisson(levels * drive * rng.uniform(0.3, 3, (N, 1)))
    genes = [f"ENSG{j:011d}" for j in range(P)]
    obs = pd.DataFrame({"status": np.where(drive[:, 0] > drive[:, 1], "case", "control")})
    obs.index = [f"s{i}" for i in range(N)]
    var = pd.DataFrame({"symbol": [f"SYM{j}" for j in range(P)]}, index=genes)
    return ad.AnnData(counts.astype("f4"), obs, var, uns={"units": "counts"})


@pytest.fixture(scope="module", params=[1e4, 1e6], ids=["ten thousand", "million"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """counts.h5ad, log.h5ad of the same, a run of few of its genes, a head on it."""
    folder = tmp_path_factory.mktemp("totals")
    _counts().write_h5ad(folder / "counts.h5ad")
    steps = ["--normalize", "total", "--target-sum", str(request.param), "--log2p1"]
    log, counts, out = (str(folder / name) for name in ("log.h5ad", "counts.h5ad", "run"))
    assert run(["-q", "convert", counts, log, *steps]) == 0
    few = ["--min-variance", "1.2", "--epochs", "2", "--latent", "3", "--hidden", "8"]
    assert run(["-q", "train", log, "--out", out, *few]) == 0
    fit = ["--label", "status", "--encoder", out, "--out", str(folder / "model")]
    assert run(["-q", "fit", "--x", log, *fit]) == 0
    n_genes = len(json.loads((folder / "run/model.json").read_text())["recipe"]["genes"])
    assert 2 < n_genes < 0.8 * P, "the premise: the model has few of the file's genes"
    return folder


def _result(folder: Path, command: str, data: str) -> np.ndarray:
    out = folder / f"{command}_{data}"
    if command == "transform":
        return load_encoder(folder / "run").transform(folder / data)
    model = str(folder / ("model" if command == "predict" else "run"))
    assert run(["-q", command, model, str(folder / data), "--out", str(out), "--force"]) == 0
    return np.asarray(ad.read_h5ad(out).X)


@pytest.mark.parametrize("command", ["encode", "predict", "score", "reconstruct", "transform"])
def test_counts_give_what_their_logarithms_give(trained: Path, command: str) -> None:
    known, found = (_result(trained, command, data) for data in ("log.h5ad", "counts.h5ad"))
    np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-5)


def test_evaluate_too(trained: Path, tmp_path: Path) -> None:
    losses = []
    for data in ("log.h5ad", "counts.h5ad"):
        out = tmp_path / data
        arguments = [str(trained / "model"), "--x", str(trained / data), "--label", "status"]
        assert run(["-q", "evaluate", *arguments, "--out", str(out)]) == 0
        losses.append(pd.read_csv(out / "losses.csv")["model"].to_numpy())
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_the_model_says_over_which_genes(trained: Path) -> None:
    recipe = json.loads((trained / "run/model.json").read_text())["recipe"]
    universe = recipe["universe"]
    assert universe["n_genes"] == P and universe["closes"]
    assert len(universe["others"]) == P - len(recipe["genes"])
    assert not set(universe["others"]) & set(recipe["genes"])


def test_other_names_another_order_and_genes_that_nobody_knows(trained: Path) -> None:
    """A file by symbols, shuffled, with genes beyond: these take no part in totals."""
    data = _counts()
    data.var_names = data.var["symbol"]
    more = ad.AnnData(np.full((N, 5), 1e5, "f4"), data.obs, pd.DataFrame(index=list("abcde")))
    order = np.random.default_rng(3).permutation(P + 5)
    other = ad.concat([data, more], axis=1, merge="same")[:, order].copy()
    other.uns["units"] = "counts"
    encoder = load_encoder(trained / "run")
    known = encoder.transform(trained / "log.h5ad")
    np.testing.assert_allclose(encoder.transform(other), known, rtol=1e-5, atol=1e-5)


def test_genes_that_the_new_file_lacks_are_said(trained: Path) -> None:
    encoder = load_encoder(trained / "run")
    data = _counts()
    outside = [g for g in data.var_names if g not in encoder.genes]
    data = data[:, [g for g in data.var_names if g not in outside[:8]]].copy()
    with pytest.warns(
        M1Warning, match=rf"{P - 8} of the {P} genes .* missing such as {outside[0]}"
    ):
        encoder.transform(data)
    own = data[:, list(encoder.genes)].copy()
    assert len(encoder.genes) < 0.8 * P
    with pytest.raises(InputError, match=f"{len(encoder.genes)} of the {P} genes.*min_coverage"):
        encoder.transform(own)


def test_an_old_model_takes_its_own_genes_and_says_so(trained: Path, tmp_path: Path) -> None:
    encoder = load_encoder(trained / "run")
    encoder.save(tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text())
    del stored["recipe"]["universe"]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    old, data = load_encoder(tmp_path), _counts()
    own = np.asarray(data[:, list(encoder.genes)].X)
    levels = np.log2(1 + encoder.units.target_sum * own / own.sum(axis=1, keepdims=True))
    with pytest.warns(M1Warning, match="does not say over which genes"):
        found = old.transform(data)
    np.testing.assert_allclose(found, encoder.encode_array(levels.astype("f4")), atol=1e-5)


def test_genes_left_out_after_scaling_are_warned_of(
    trained: Path, tmp_path: Path, m1pipe: Callable[..., Said]
) -> None:
    """Highly variable genes of a normalised file: training says so, raw counts are refused."""
    data = ad.read_h5ad(trained / "log.h5ad")
    few = data[:, np.argsort(-data.X.std(axis=0))[:40]].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    few_steps = ["--epochs", "1", "--latent", "2"]
    said = m1pipe("train", tmp_path / "few.h5ad", "--out", tmp_path / "run", *few_steps)
    assert said.code == 0
    assert "expected samples that sum to their target sum" in said.err
    assert "--min-variance" in said.err
    encoder = load_encoder(tmp_path / "run")
    with pytest.raises(InputError, match=r"did not sum to their target sum.*normalize"):
        encoder.transform(_counts())
    assert encoder.transform(few).shape == (N, 2)
