"""The challenge's scores against plain scikit-learn and numpy, by its definitions."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from m1pipe.synthesis.camda import CAMDA, camda_scores, histogram_divergence
from m1pipe.synthesis.utility import ClassedRows


@pytest.fixture(scope="module")
def sets() -> list[ClassedRows]:
    """Training, synthetic, held-out samples of classes that overlap; more genes than rows."""
    centres = 0.35 * np.random.default_rng(9).normal(size=(3, 90))
    made = []
    for seed, n in ((1, 45), (2, 60), (3, 30)):
        rng = np.random.default_rng(seed)
        codes = np.arange(n) % 3
        made.append(ClassedRows(3 + centres[codes] + rng.normal(size=(n, 90)), codes))
    return made


@pytest.fixture(scope="module")
def found(sets: list[ClassedRows]) -> dict[str, float]:
    return {s.definition.name: s.value for s in camda_scores(*sets, seed=5)}


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_classifiers(sets: list[ClassedRows], found: dict[str, float], kind: str) -> None:
    x, s, h = sets
    scaler, train = StandardScaler().fit(x.X), s if kind == "synthetic" else x
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000, tol=1e-8))
    p = model.fit(scaler.transform(train.X), train.codes).predict_proba(scaler.transform(h.X))
    expected = {
        "accuracy": np.mean(p.argmax(axis=1) == h.codes),
        "avg_pr_macro": average_precision_score(h.codes, p, average="macro"),
        "avg_pr_weight": average_precision_score(h.codes, p, average="weighted"),
        "f1": f1_score(h.codes, p.argmax(axis=1), average="weighted"),
        "auroc": roc_auc_score(h.codes, p, average="macro", multi_class="ovr"),
    }
    for name, value in expected.items():
        assert 0.34 < value < 1
        assert found[f"{name}_{kind}"] == pytest.approx(value, abs=1e-3), name


def test_genes_that_both_classifiers_weigh_most(
    sets: list[ClassedRows], found: dict[str, float]
) -> None:
    x, s, _ = sets
    scaler, top = StandardScaler().fit(x.X), []
    for rows in (s, x):
        model = OneVsRestClassifier(LogisticRegression(max_iter=1000, tol=1e-8))
        model.fit(scaler.transform(rows.X), rows.codes)
        top.append({j for e in model.estimators_ for j in np.argsort(e.coef_[0])[-10:]})
    assert 0 < found["feature_overlap_count"] == len(top[0] & top[1])
    assert found["feature_overlap_proportion"] == len(top[0] & top[1]) / len(top[0])


def test_distributions_and_distances(sets: list[ClassedRows], found: dict[str, float]) -> None:
    x, s, h = (rows.X for rows in sets)

    def mmd(A: np.ndarray, B: np.ndarray) -> float:
        a, b, ab = (rbf_kernel(*pair, gamma=1 / 90) for pair in ((A, A), (B, B), (A, B)))
        n, m = len(A), len(B)
        within = (a.sum() - n) / (n * (n - 1)) + (b.sum() - m) / (m * (m - 1))
        return float(within - 2 * ab.mean())

    members, others = -cdist(x, s).min(axis=1), -cdist(h, s).min(axis=1)
    truth = np.repeat([1, 0], [len(x), len(h)])
    false, true, _ = roc_curve(truth, np.append(members, others), drop_intermediate=False)
    expected = {
        "MMD_train": mmd(x, s),
        "MMD_test": mmd(h, s),
        "MMD_base": mmd(x, h),
        "distance_to_closest": cdist(s, x).min(axis=1).mean(),
        "distance_to_closest_base": cdist(h, x).min(axis=1).mean(),
        "tpr_at_fpr_01": true[false < 0.1].max(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_histograms_are_numpys(sets: list[ClassedRows], found: dict[str, float]) -> None:
    X, S = sets[0].X, sets[1].X
    divergences = []
    for x, s in zip(X.T, S.T, strict=True):
        bins = np.linspace(min(x.min(), s.min()), max(x.max(), s.max()), 50)
        p, q = (np.histogram(v, bins, density=True)[0] + 1e-10 for v in (x, s))
        p, q = p / p.sum(), q / q.sum()
        divergences.append(np.sum(p * np.log(p / q)))
    assert found["kl_mean_train"] == pytest.approx(np.mean(divergences), rel=1e-3)
    constant = np.ones((10, 1))
    assert histogram_divergence(constant, constant) == 0


def test_discriminative_score_finds_real_samples(
    sets: list[ClassedRows], found: dict[str, float]
) -> None:
    x, s, h = (rows.X for rows in sets)
    split = train_test_split(
        np.concatenate([x, s]), np.repeat([1, 0], [45, 60]), test_size=0.3, random_state=5
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-8))
    predicted = model.fit(split[0], split[2]).predict(np.concatenate([h, split[1]]))
    expected = f1_score(np.append(np.ones(30), split[3]), predicted)
    assert found["discriminative_score"] == pytest.approx(expected)


def test_sets_of_one_class_are_refused(sets: list[ClassedRows]) -> None:
    x, s, h = sets
    one = s.take(np.flatnonzero(s.codes == 1))
    for given in ((x, one, h), (one, s, h)):
        with pytest.raises(ValueError, match="needs two classes; found one"):
            camda_scores(*given, seed=5)


def test_every_score_has_its_base(sets: list[ClassedRows]) -> None:
    by_name = {s.definition.name: s for s in camda_scores(*sets, seed=5)}
    assert list(by_name) == [definition.name for definition in CAMDA]
    assert by_name["accuracy_synthetic"].ceiling == by_name["accuracy_real"].value
    assert by_name["MMD_test"].ceiling == by_name["MMD_base"].value
    assert all(np.isnan(score.calibrated) for score in by_name.values())
