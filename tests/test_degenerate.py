"""Data without anything to learn from: a result that says so, or one line."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scripts import load_script

from m1pipe.artefacts import pack_arrays, read_json, sealed
from m1pipe.atomic import atomic_file
from m1pipe.cli.main import _print_uncaught, run
from m1pipe.clustering.clusters import find_clusters
from m1pipe.clustering.config import ClusterConfig
from m1pipe.data.matrix import LARGEST, are_levels
from m1pipe.errors import InputError
from m1pipe.heads.logistic import fit_logistic
from m1pipe.plots.embedding import METHODS, embed
from m1pipe.sweep.trials import best_trial
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality_data import load_quality_data

N, P = 12, 4
FIT = ["--label", "tissue", "--head-epochs", "1", "--head-hidden", "4"]


def _frame(X: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(X.astype(np.float32), [f"s{i}" for i in range(len(X))])
    frame.columns = [f"g{j}" for j in range(X.shape[1])]
    frame.attrs["units"] = "log2_tpm1"
    return frame


def _levels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 9, (N, P))


@pytest.mark.parametrize("value", [3e38, -1e30, np.nan, np.inf, 1.1 * LARGEST])
def test_what_is_no_level_is_seen(value: float) -> None:
    X = _levels()
    assert are_levels(X) and are_levels(X[:0]) and are_levels(np.full((1, 1), LARGEST))
    X[3, 2] = value
    assert not are_levels(X)


def test_a_level_too_large_for_sums_of_squares_is_named(tmp_path: Path, capsys) -> None:
    X = _frame(_levels())
    X.iloc[3, 2] = 3e38
    data = anndata.AnnData(X)
    data.uns["units"] = "intensity"
    data.write_h5ad(tmp_path / "x.h5ad")
    arguments = ["train", str(tmp_path / "x.h5ad"), "--out", str(tmp_path / "run")]
    assert run(["-q", *arguments, "--latent", "2", "--hidden", "4"]) == 1
    said = capsys.readouterr().err
    assert "expected levels up to 1e+15; found 3e+38 in sample 's3', gene 'g2'" in said


def test_a_model_of_genes_that_do_not_vary_opens_again_and_gives_the_shares(
    tmp_path: Path,
) -> None:
    X = np.full((N, P), 5.0)
    data = anndata.AnnData(_frame(X))
    data.obs["tissue"] = ["a", "b", "b"] * 4
    data.uns["units"] = "log2_tpm1"
    data.write_h5ad(tmp_path / "x.h5ad")
    place = {name: str(tmp_path / name) for name in ("x.h5ad", "model", "out.h5ad")}
    assert run(["-q", "fit", "--x", place["x.h5ad"], *FIT, "--out", place["model"]]) == 0
    made = ["-q", "predict", place["model"], place["x.h5ad"], "--out", place["out.h5ad"]]
    assert run(made) == 0
    found = anndata.read_h5ad(tmp_path / "out.h5ad").to_df()
    np.testing.assert_allclose(found["b"], 2 / 3, atol=1e-3)


def test_logistic_regression_of_no_features_gives_the_shares() -> None:
    targets = np.array([0, 1, 1] * 8)
    for X in (np.zeros((24, 3)), np.empty((24, 0))):
        found = fit_logistic(X, targets, kind="multiclass", n_classes=2)
        np.testing.assert_allclose(found.predict(X)[0], [1 / 3, 2 / 3], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_samples_that_are_all_the_same_have_no_map(method: str) -> None:
    with pytest.raises(InputError, match="expected some that differ; found 12 that are the same"):
        embed(np.ones((N, P)), method=method)


def test_clusters_need_samples_that_differ() -> None:
    with pytest.raises(InputError, match="at least 2 samples that differ; found 1 among 12"):
        find_clusters(np.ones((N, 2)), ClusterConfig())
    two = np.repeat([[0.0, 0.0], [3.0, 4.0]], 6, axis=0)
    assert find_clusters(two, ClusterConfig()).k == 2
    with pytest.raises(InputError, match="at least 3 samples that differ; found 2 among 12"):
        find_clusters(two, ClusterConfig(k=3))


@pytest.mark.parametrize("role", ["real", "holdout"])
def test_quality_needs_real_samples_that_differ(role: str) -> None:
    sets = {name: _frame(_levels(i)) for i, name in enumerate(("real", "synthetic", "holdout"))}
    sets[role].iloc[:] = 5
    with pytest.raises(InputError, match=f"{role}: expected samples that differ; found 12"):
        load_quality_data(*sets.values(), QualityConfig())


def test_a_sweep_without_a_trial_says_why_the_first_failed() -> None:
    records = [{"unexplained": None, "error": "no gene varies"}, {"unexplained": None}]
    with pytest.raises(InputError, match="a trial that ended; found none: no gene varies"):
        best_trial(records)


def test_weights_that_are_not_finite_are_not_written() -> None:
    arrays = {"w": np.array([1.0, np.nan]), "scale": np.array([np.inf])}
    with pytest.raises(InputError, match="w holds numbers that are not finite: it is not written"):
        pack_arrays(arrays, free=("scale",))
    assert pack_arrays({"scale": arrays["scale"]}, free=("scale",))
    assert pack_arrays(arrays, finite=False)


def test_a_sealed_record_comes_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path, value = tmp_path / "a.json", {"a": [1, 0.1, None], "b": {"c": "é"}}
    path.write_text(json.dumps(sealed(value)))
    assert read_json(path, "a record") == value
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(InputError, match="expected a record; it is not as it was written"):
        read_json(path, "a record")
    path.write_text(json.dumps(value))
    assert read_json(path, "a record") == value  # written before there were seals


def test_what_hdf5_could_not_write_at_a_close_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for text, shown in (("Can't decrement id ref count (...)", False), ("another", True)):
        try:
            raise RuntimeError(text)
        except RuntimeError:
            _print_uncaught(*sys.exc_info())
        assert (text in capsys.readouterr().err) == shown


def test_what_hdf5_cannot_write_at_a_close_is_one_line_and_other_faults_are_ours(
    tmp_path: Path,
) -> None:
    said = "Disable slist on flush (errno = 28, error message = 'No space left on device', buf = 0)"
    with (
        pytest.raises(InputError, match=r"x\.h5: could not be written; No space left on device:"),
        atomic_file(tmp_path / "x.h5"),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="ours"), atomic_file(tmp_path / "x.h5"):
        raise RuntimeError("ours")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_commands_on_constant_data_and_on_two_samples(tmp_path: Path) -> None:
    found = load_script("degenerate").run_all(
        tmp_path, ["constant", "two samples"], ["train", "fit of levels", "sweep", "map, pca"]
    )
    assert found["wrong"] == []
    assert found["said"]["constant"]["sweep: sweep"].startswith("1: ")
