"""Test folds have no say in what reconstructs them, and the figures are those taken by hand."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA as SklearnPCA

from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError
from m1pipe.evaluation.compression import FoldScores, compare_models
from m1pipe.io.reader import open_matrix
from m1pipe.sweep.compression import Reconstruction, fold_pca, planned_folds, run_fold, split_fold
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.trials import Split, run_trial

CONFIG = SweepConfig(neurons=(3,), folds=4)
QUICK = {"epochs": 3, "hidden": (8,), "beta": 0.0, "n_latent": 3}


def _adata(X: np.ndarray) -> anndata.AnnData:
    samples, genes = (
        [f"{kind}{i}" for i in range(n)] for kind, n in zip("sg", X.shape, strict=True)
    )
    adata = anndata.AnnData(
        X.astype(np.float32), pd.DataFrame(index=samples), pd.DataFrame(index=genes)
    )
    adata.uns["units"] = "log_fold_change"
    return adata


def _linear(n: int = 160, p: int = 30, k: int = 3, seed: int = 0) -> np.ndarray:
    """Low-rank rows with noise: nothing but components to find."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) @ rng.normal(size=(k, p)) + 0.5 * rng.normal(size=(n, p))


def _curved(n: int = 400, p: int = 40, seed: int = 0) -> np.ndarray:
    """Two factors that genes follow in waves, which two components cannot carry."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, size=(n, 2))
    waves = np.sin(2.2 * (z @ rng.normal(size=(2, p))) + rng.uniform(0, 6, p))
    return waves + 0.1 * rng.normal(size=(n, p))


@pytest.mark.parametrize("grouped", [False, True])
def test_every_row_is_tested_once_a_repeat_and_never_beside_its_group(grouped: bool) -> None:
    groups = np.repeat(np.arange(30), 4) if grouped else None
    config = replace(CONFIG, repeats=2)
    for repeat in range(2):
        splits = [split_fold(120, config, groups, repeat=repeat, fold=k) for k in range(4)]
        assert sorted(np.concatenate([s.test for s in splits])) == list(range(120))
        for s in splits:
            parts = (s.training, s.validation, s.test)
            assert sorted(np.concatenate(parts)) == list(range(120))
            assert s.validation.size == pytest.approx(18, abs=4)
            if groups is not None:
                held = [set(groups[part]) for part in parts]
                assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    first, second = (split_fold(120, config, groups, repeat=r, fold=0).test for r in (0, 1))
    assert set(first) != set(second)


def test_an_autoencoder_and_a_vae_unless_one_is_asked_for() -> None:
    both = planned_folds(SweepConfig(neurons=(2, 5), folds=3, repeats=2), {"epochs": 2})
    assert len(both) == 2 * 3 * 2 * 2
    assert {(t.repeat, t.fold) for t in both} == {(r, k) for r in range(2) for k in range(3)}
    assert both[0].settings == {"n_latent": 2, "beta": 0.0} and both[1].settings["beta"] == 1.0
    one = planned_folds(CONFIG, {"beta": 0.5})
    assert [t.settings["beta"] for t in one] == [0.5] * 4
    with pytest.raises(InputError, match="expected no condition"):
        planned_folds(CONFIG, {"condition": "tissue"})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"folds": 1, "neurons": (2,)}, "expected 0 or at least 2"),
        ({"folds": 4}, "expected latent sizes to compare"),
        ({"folds": 4, "neurons": (2,), "layers": (2,)}, "no layers"),
        ({"repeats": 0}, "repeats: expected at least 1"),
    ],
)
def test_settings_of_folds_are_checked(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        SweepConfig(**settings)  # type: ignore[arg-type]


def _spoiled(adata: anndata.AnnData, rows: np.ndarray) -> anndata.AnnData:
    other = adata.copy()
    other.X[rows] = np.random.default_rng(5).normal(3, 40, other.X[rows].shape)
    return other


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_changed_test_rows_change_no_weight_scale_or_component(beta: float) -> None:
    adata = _adata(_linear())
    split = split_fold(160, CONFIG, None, repeat=0, fold=1)
    rows = np.concatenate([split.training, split.validation])
    found = []
    for data in (adata, _spoiled(adata, split.test)):
        matrix = open_matrix(data)
        encoder, facts = run_trial(matrix, {}, QUICK | {"beta": beta}, split)
        facts.pop("seconds")
        parts = (encoder.scaler.location, encoder.scaler.scale, encoder.pca.components,
                 fold_pca(encoder, matrix, rows).components)  # fmt: skip
        found.append((encoder.digest(), facts, parts))
    assert found[0][:2] == found[1][:2]
    for clean, spoiled in zip(found[0][2], found[1][2], strict=True):
        np.testing.assert_array_equal(clean, spoiled)


def test_test_rows_are_read_when_training_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, reads = open_matrix(_adata(_linear())), []
    split, take = split_fold(160, CONFIG, None, repeat=0, fold=0), Matrix.take

    def spy(self: Matrix, indices: np.ndarray, *rest: object, **more: object) -> np.ndarray:
        reads.append(bool(np.isin(indices, split.test).any()))
        return take(self, indices, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Matrix, "take", spy)
    run_fold(matrix, {}, QUICK, split)
    assert len(reads) > 4 and not any(reads[:-2]) and all(reads[-2:])


def test_residuals_of_both_pca_are_those_by_hand() -> None:
    X = _linear()
    split = split_fold(160, CONFIG, None, repeat=0, fold=2)
    found = run_fold(open_matrix(_adata(X)), {}, QUICK, split)
    train, test = X[split.training], X[split.test]
    mean, sd = train.mean(0), train.std(0)
    Z = (test - mean) / sd
    for name, rows in (
        ("pca", split.training),
        ("pca_fold", np.concatenate([split.training, split.validation])),
    ):
        pca = SklearnPCA(3, svd_solver="full").fit((X[rows] - mean) / sd)
        left = (Z - pca.inverse_transform(pca.transform(Z))) ** 2
        np.testing.assert_allclose(found.errors[name], left.mean(1), rtol=2e-3)
        np.testing.assert_allclose(found.sse[name], left.sum(0), rtol=2e-3)
    np.testing.assert_allclose(found.deviations, (Z**2).mean(1), rtol=1e-4)
    np.testing.assert_allclose(found.sst, (Z**2).sum(0), rtol=1e-4)
    np.testing.assert_array_equal(found.genes, np.arange(30))


def test_missing_levels_are_left_out() -> None:
    X = _linear()
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    split = split_fold(160, CONFIG, None, repeat=0, fold=2)
    found = run_fold(open_matrix(_adata(X)), {}, QUICK, split)
    mean, sd = np.nanmean(X[split.training], 0), np.nanstd(X[split.training], 0)
    Z = (X[split.test] - mean) / sd
    np.testing.assert_allclose(found.deviations, np.nanmean(Z**2, 1), rtol=1e-3)
    np.testing.assert_allclose(found.sst, np.nansum(Z**2, 0), rtol=1e-3)


def test_components_are_capped_by_the_rows() -> None:
    split = Split(np.arange(20), np.arange(20, 26), np.arange(26, 40))
    wide = {**QUICK, "n_latent": 50}
    found = run_fold(open_matrix(_adata(_linear(40, 60))), {}, wide, split)
    assert found.n_components == {"ae": 50, "pca": 19, "pca_fold": 25}


def _compared(X: np.ndarray, n_latent: int, **settings: object) -> pd.DataFrame:
    """Differences of pooled R2, autoencoder minus PCA, of four folds."""
    matrix, scores = open_matrix(_adata(X)), []
    for fold in range(4):
        split = split_fold(len(X), CONFIG, None, repeat=0, fold=fold)
        chosen = {"n_latent": n_latent, "beta": 0.0, **settings}
        found = run_fold(matrix, {}, chosen, split)
        scores += [_scores(found, split, fold, name, n_latent) for name in found.errors]
    table = compare_models(scores, 4)
    headline = table[(table["metric"] == "r2") & (table["test"] == "nadeau_bengio")]
    return headline.set_index("model_b")


def _scores(found: Reconstruction, split: Split, fold: int, name: str, n_latent: int) -> FoldScores:
    return FoldScores(
        repeat=0,
        fold=fold,
        model=name,
        n_latent=n_latent,
        n_components=found.n_components[name],
        errors=found.errors[name],
        deviations=found.deviations,
        sse=found.sse[name],
        sst=found.sst,
        samples=split.test,
        genes=found.genes,
    )


def test_no_network_passes_the_components_of_linear_data() -> None:
    table = _compared(_linear(200, 30, 3), 3, epochs=20)
    assert table.loc["pca_fold", "difference"] < 0.005
    assert abs(table.loc["pca", "difference"]) < 0.02


def test_a_network_passes_pca_on_curved_data() -> None:
    table = _compared(_curved(), 2, epochs=60, hidden=(64,), decoder_hidden=(64,), lr=3e-3)
    assert (table["difference"] > 0.05).all() and (table["ci_low"] > 0).all()
    assert (table["p_bh"] < 0.05).all()
