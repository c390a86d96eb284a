"""R2 of test folds and its tests, against loops and against scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from m1pipe.evaluation.compression import (
    METRICS,
    FoldScores,
    compare_models,
    contrast_table,
    fold_table,
    gene_table,
    r2_of,
    summary_table,
)
from m1pipe.evaluation.significance import benjamini_hochberg

N, P, K = 24, 7, 4
LEFT = {"ae": 0.5, "vae": 0.6, "pca": 0.55, "pca_fold": 0.4}


def _squares() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    deviations = rng.gamma(2, 1, (N, P))
    left = {name: share * rng.gamma(20, 0.05, (N, P)) for name, share in LEFT.items()}
    return deviations, left, np.arange(N) % K


@pytest.fixture(scope="module")
def scores() -> list[FoldScores]:
    deviations, left, folds = _squares()
    return [
        FoldScores(
            repeat=0,
            fold=fold,
            model=name,
            n_latent=width,
            n_components=width,
            errors=squares[here].mean(1) / width,
            deviations=deviations[here].mean(1),
            sse=squares[here].sum(0) / width,
            sst=deviations[here].sum(0),
            samples=np.flatnonzero(here),
            genes=np.arange(P),
        )
        for width in (1, 2)
        for fold in range(K)
        for here in [folds == fold]
        for name, squares in left.items()
    ]


def test_r2_is_pooled_by_gene_and_by_contrast(scores: list[FoldScores]) -> None:
    deviations, left, folds = _squares()
    table = fold_table(scores).set_index(["n_latent", "model", "fold"])
    assert len(table) == 2 * len(LEFT) * K
    for name, squares in left.items():
        for fold in range(K):
            here = folds == fold
            found = table.loc[(1, name, fold)]
            by_gene = [1 - squares[here, j].sum() / deviations[here, j].sum() for j in range(P)]
            by_row = [1 - squares[i].sum() / deviations[i].sum() for i in np.flatnonzero(here)]
            expected = (1 - squares[here].sum() / deviations[here].sum(), np.mean(by_gene),
                        np.median(by_gene), np.mean(by_row), np.median(by_row))  # fmt: skip
            assert found[list(METRICS)].astype(float).to_numpy() == pytest.approx(expected)


def test_the_headline_is_the_corrected_t_over_folds(scores: list[FoldScores]) -> None:
    table, tests = fold_table(scores), compare_models(scores, K)
    for a, b in (("ae", "pca"), ("vae", "ae")):
        own = table[table["n_latent"] == 2].pivot(index="fold", columns="model", values="r2")
        d = (own[a] - own[b]).to_numpy()
        se = np.sqrt((1 / K + 1 / (K - 1)) * d.var(ddof=1))
        row = tests[
            (tests["n_latent"] == 2) & (tests["model_a"] == a) & (tests["model_b"] == b)
            & (tests["metric"] == "r2")
        ].squeeze()  # fmt: skip
        assert row["difference"] == pytest.approx(d.mean())
        assert row["p"] == pytest.approx(2 * stats.t.sf(abs(d.mean()) / se, K - 1))
        half = stats.t.ppf(0.975, K - 1) * se
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((d.mean() - half, d.mean() + half))


def test_the_family_is_networks_against_pca_in_pooled_r2(scores: list[FoldScores]) -> None:
    tests = compare_models(scores, K)
    family = tests[tests["p_bh"].notna()]
    assert len(family) == 2 * 2 * 2 and set(family["model_b"]) == {"pca", "pca_fold"}
    assert set(family["metric"]) == {"r2"} and set(family["test"]) == {"nadeau_bengio"}
    expected = stats.false_discovery_control(family["p"].to_numpy())
    assert family["p_bh"].to_numpy() == pytest.approx(expected)
    assert (family["p_holm"] >= family["p_bh"] - 1e-12).all()
    assert len(tests) == 2 * 5 * (len(METRICS) + 1)


def test_groups_are_the_unit_of_the_bootstrap(scores: list[FoldScores]) -> None:
    groups = np.arange(N) // 3
    plain, grouped = (compare_models(scores, K, groups=g) for g in (None, groups))
    for table, n in ((plain, N), (grouped, N // 3)):
        own = table[table["test"] == "bootstrap"]
        assert set(own["n_independent"]) == {n} and own["p"].isna().all()
        assert (own["ci_low"] <= own["difference"]).all()
        assert (own["ci_high"] >= own["difference"]).all()


def test_equal_models_differ_by_nothing(scores: list[FoldScores]) -> None:
    from dataclasses import replace

    pca = [s for s in scores if s.model == "pca"]
    twins = [*pca, *(replace(s, model="ae") for s in pca)]
    tests = compare_models(twins, K)
    own = tests[(tests["metric"] == "r2") & (tests["model_b"] == "pca")]
    assert (own["difference"] == 0).all() and (own["p"] == 1).all()


def test_means_and_long_tables(scores: list[FoldScores]) -> None:
    deviations, left, _ = _squares()
    summary = summary_table(fold_table(scores), K).set_index(["n_latent", "model"])
    folds = fold_table(scores).groupby(["n_latent", "model"])["r2"].mean()
    assert summary.loc[(1, "vae"), "r2"] == pytest.approx(folds.loc[(1, "vae")])
    assert (summary["ci_low"] < summary["r2"]).all() and (summary["ci_high"] > summary["r2"]).all()
    genes = gene_table(scores, {j: f"g{j}" for j in range(P)})
    assert len(genes) == 2 * len(LEFT) * P
    own = genes[(genes["model"] == "ae") & (genes["n_latent"] == 1)].set_index("gene")["r2"]
    assert own["g3"] == pytest.approx(1 - left["ae"][:, 3].sum() / deviations[:, 3].sum())
    contrasts = contrast_table(scores, {i: f"s{i}" for i in range(N)})
    assert len(contrasts) == 2 * len(LEFT) * N and contrasts["sample"].nunique() == N


def test_what_never_varies_has_no_r2() -> None:
    found = r2_of(np.array([0.5, 0.0]), np.array([1.0, 0.0]))
    assert found[0] == 0.5 and np.isnan(found[1])


def test_adjusted_p_values_keep_their_nan() -> None:
    found = benjamini_hochberg([0.01, np.nan, 0.04])
    assert np.isnan(found[1])
    expected = stats.false_discovery_control([0.01, 1.0, 0.04])
    assert found[[0, 2]] == pytest.approx(expected[[0, 2]])
    assert benjamini_hochberg([]).size == 0


def test_pandas_sees_numbers(scores: list[FoldScores]) -> None:
    table = fold_table(scores)
    assert all(pd.api.types.is_float_dtype(table[name]) for name in METRICS)
