"""Values that are not what a file says they are, refused wherever it is used."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from said import Said

from m1pipe import VAE, load_encoder
from m1pipe.data.unit_guess import check_units, looks_other
from m1pipe.data.units import LN, Units, read_units
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.reader import open_matrix

Run = Callable[..., Said]
N, P = 60, 30
RNG = np.random.default_rng(7)


def _counts(n_genes: int = P) -> ad.AnnData:
    rng = np.random.default_rng(1)
    levels = rng.gamma(0.6, 60, n_genes) * np.exp(0.3 * rng.normal(size=(N, 1)))
    data = ad.AnnData(
        rng.poisson(levels * np.exp(0.4 * rng.normal(size=(N, n_genes)))).astype("f4")
    )
    data.obs_names = [f"s{i}" for i in range(N)]
    data.var_names = [f"g{j}" for j in range(n_genes)]
    data.obs["status"] = ["case", "control"] * (N // 2)
    data.uns["units"] = "counts"
    return data


def _normalised(base: float | None = None, target: float = 1e4) -> ad.AnnData:
    """As scanpy leaves it: normalize_total, log1p."""
    data = _counts()
    data.X = np.log1p(data.X / data.X.sum(1, keepdims=True) * target)
    if base is not None:
        data.X = data.X / np.log(base)
    data.uns["log1p"] = {"base": base}
    return data


def _stale() -> dict[str, ad.AnnData]:
    found = {"natural logarithms called counts": _normalised()}
    no_note = _normalised()
    del no_note.uns["log1p"]
    found["logarithms called counts"] = no_note
    unnoted = _normalised()
    unnoted.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    found["natural logarithms called log2, without a note"] = unnoted
    called_log2 = _normalised()
    called_log2.uns |= {"units": "log2_normalized1", "target_sum": 1e4}
    found["natural logarithms called log2"] = called_log2
    scaled = _counts()
    scaled.X = scaled.X / scaled.X.sum(1, keepdims=True) * 1e6
    found["normalised, called counts"] = scaled
    raw = _counts()
    raw.uns["units"] = "log2_tpm1"
    found["counts called logarithms"] = raw
    z = _normalised(2)
    z.X = (z.X - z.X.mean(0)) / z.X.std(0)
    z.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    found["z-scores called logarithms"] = z
    return found


STALE = _stale()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on logarithms of these counts, and a head on it."""
    from m1pipe.cli.main import run

    folder = tmp_path_factory.mktemp("units")
    good = _normalised()
    good.uns["units"] = "ln_normalized1"
    good.write_h5ad(folder / "good.h5ad")
    x = str(folder / "good.h5ad")
    small = ["--epochs", "1", "--latent", "2", "--hidden", "8"]
    assert run(["-q", "train", x, "--out", str(folder / "run"), *small]) == 0
    fit = ["--encoder", str(folder / "run"), "--label", "status", "--out", str(folder / "model")]
    assert run(["-q", "fit", "--x", x, *fit]) == 0
    return folder


@pytest.mark.parametrize("name", STALE)
def test_units_that_are_no_longer_true_are_refused(
    m1pipe: Run, trained: Path, tmp_path: Path, name: str
) -> None:
    x, out, runs = tmp_path / "x.h5ad", tmp_path / "out", trained / "run"
    STALE[name].write_h5ad(x)
    for command in (
        ["train", x],
        ["encode", runs, x],
        ["score", runs, x],
        ["predict", trained / "model", x],
        ["evaluate", trained / "model", "--x", x, "--label", "status"],
        ["fit", "--x", x, "--label", "status"],
        ["crossval", "--x", x, "--label", "status", "--models", "prior,logistic"],
        ["quality", "--real", x, "--synthetic", x, "--holdout", x],
    ):
        said = m1pipe(*command, "--out", out)
        assert said.code == 1, (command, said.err)
        assert "units say" in said.err and "--units" in said.err, said.err
        assert not out.exists()
    with pytest.raises(InputError, match="units say"):
        load_encoder(runs).transform(STALE[name])
    with pytest.raises(InputError, match="units say"):
        VAE(n_latent=2, epochs=1).fit(STALE[name])


def test_true_units_pass() -> None:
    estimated = _counts()
    estimated.X = estimated.X + np.float32(0.25) * np.random.default_rng(0).random((N, P), "f4")
    corrected = _normalised(2)  # of batches: some values fall below 0
    corrected.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    corrected.X = corrected.X - 0.3
    intensity = _normalised(2)
    intensity.uns = {"units": "log2_intensity"}
    for data in (_counts(), estimated, corrected, intensity, _tpm_of_few_genes()):
        check_units(open_matrix(data))


def _tpm_of_few_genes() -> ad.AnnData:
    data = ad.AnnData(np.random.default_rng(0).uniform(0, 5, (30, 12)).astype("f4"))
    data.uns["units"] = "tpm"
    return data


@pytest.mark.parametrize(("base", "units"), [(None, "ln_normalized1"), (2, "log2_normalized1")])
def test_scanpys_own_note_is_read(base: float | None, units: str, tmp_path: Path) -> None:
    data = _normalised(base)
    del data.uns["units"]
    data.write_h5ad(tmp_path / "x.h5ad")
    for source in (data, tmp_path / "x.h5ad"):
        with open_matrix(source) as matrix:
            assert matrix.units.name == units
            assert base == 2 or matrix.units.target_sum == 1e4, "seen in the sums"


def test_natural_logarithms_become_log2(m1pipe: Run, tmp_path: Path, trained: Path) -> None:
    data = _normalised()
    data.write_h5ad(tmp_path / "x.h5ad")
    out = tmp_path / "y.h5ad"
    said = m1pipe("convert", tmp_path / "x.h5ad", out, "--units", "ln_normalized1", "--log2p1")
    assert said.code == 0, said.err
    found = ad.read_h5ad(out)
    assert (found.uns["units"], found.uns["target_sum"]) == ("log2_normalized1", 1e4)
    linear = _counts().X / _counts().X.sum(1, keepdims=True) * 1e4
    np.testing.assert_allclose(found.X, np.log2(1 + linear), rtol=1e-5)
    encoder = load_encoder(trained / "run")  # of natural logarithms
    known = encoder.transform(trained / "good.h5ad")
    for other in (out, _counts()):
        np.testing.assert_allclose(encoder.transform(other), known, rtol=1e-4, atol=1e-4)


def test_unknown_units_are_refused_where_they_look_raw(trained: Path) -> None:
    encoder = load_encoder(trained / "run")
    raw, level = _counts(), _counts()
    level.X = level.X / level.X.sum(1, keepdims=True) * 1e6
    for data in (raw, level):
        del data.uns["units"]
        with pytest.raises(InputError, match=r"unknown units that look like .*units"):
            encoder.transform(data)


def test_unknown_units_stay_in_what_is_written(m1pipe: Run, trained: Path, tmp_path: Path) -> None:
    data = _normalised()
    data.uns.clear()
    x = tmp_path / "x.h5ad"
    data.write_h5ad(x)
    said = m1pipe("predict", trained / "model", x, "--out", tmp_path / "p.h5ad")
    assert said.code == 0 and "unknown" in said.err
    caution = ad.read_h5ad(tmp_path / "p.h5ad").uns["m1pipe"]["caution"]
    assert "not recorded: its values were taken as ln_normalized1" in caution
    out = tmp_path / "ev"
    said = m1pipe("evaluate", trained / "model", "--x", x, "--label", "status", "--out", out)
    assert said.code == 0
    assert "not recorded: its values were taken as" in (out / "evaluate.html").read_text()


def test_a_fitted_estimator_takes_no_other_units() -> None:
    data = _normalised(2)
    data.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    vae = VAE(n_latent=2, hidden=(4,), epochs=1).fit(data)
    assert vae.transform(data).shape == (N, 2)
    with pytest.raises(InputError, match=r"expected log2_normalized1.*found counts"):
        vae.transform(_counts())


def test_duplicate_genes_are_refused_by_train(m1pipe: Run, tmp_path: Path) -> None:
    data = _normalised(2)
    data.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    data.var_names = ["same", "same", *data.var_names[2:]]
    data.write_h5ad(tmp_path / "x.h5ad")
    said = m1pipe("train", tmp_path / "x.h5ad", "--out", tmp_path / "run")
    assert said.code == 1 and "expected unique names; found 'same'" in said.err


def test_frames_of_unknown_units_warn_once() -> None:
    frame = pd.DataFrame(np.ones((3, 2)), columns=["a", "b"])
    frame.attrs["units"] = "bananas"
    with pytest.warns(M1Warning, match="units 'bananas' are not known"):
        check_units(open_matrix(frame))


@pytest.mark.parametrize(("units", "steps"), [("counts", "--normalize=total"), ("tpm", "--log2p1")])
def test_logarithms_are_not_logged_again(
    m1pipe: Run, tmp_path: Path, units: str, steps: str
) -> None:
    levels = np.log2(1 + RNG.poisson(50, (6, 120)))
    frame = pd.DataFrame(levels, [f"s{i}" for i in range(6)], [f"g{j}" for j in range(120)])
    frame.to_csv(tmp_path / "x.tsv", sep="\t")
    dest = tmp_path / "x.h5ad"
    said = m1pipe("convert", tmp_path / "x.tsv", dest, "--units", units, steps)
    assert said.code == 1 and "look like log" in said.err and not dest.exists()
    said = m1pipe("convert", tmp_path / "x.tsv", dest, "--units", units)
    assert said.code == 0 and "look like log" in said.err


@pytest.mark.parametrize("entry", [np.array(["log2_cpm1"], dtype=object), "LOG2_CPM1 "])
def test_units_as_other_programs_write_them(entry: object) -> None:
    assert read_units({"units": entry}) == Units("log2_cpm1")
    assert read_units({"units": "normalized", "target_sum": np.array([1e4])}).target_sum == 1e4


def test_unknown_values_that_are_natural_logarithms_by_their_sums_are_refused() -> None:
    counts = RNG.poisson(20, (30, 40)) + 1.0
    natural = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    scaled = (natural - natural.mean(axis=0)) / natural.std(axis=0)
    want, natural_want = Units("log2_normalized1", 1e4), Units(LN, 1e4)
    assert looks_other(natural, want).startswith("natural logarithms")
    assert looks_other(scaled, want) == "z-scores"
    assert looks_other(natural / np.log(2), want) == looks_other(natural, natural_want) == ""
