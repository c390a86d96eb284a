"""The scores of the CAMDA health privacy challenge (2025), under its names and by its definitions.

For comparison with what others report: fidelity is partly against training samples, sizes differ
between sets, and there are no intervals. Source: `src/evaluation/evaluate.py` of
https://github.com/PMBio/Health-Privacy-Challenge. Left out are MMD by class, and co-expression and
differential expression, which it computes in R.
"""

from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier

from m1pipe.data.transforms import fit_gene_transform
from m1pipe.synthesis.attacks import attack_values, gan_leaks
from m1pipe.synthesis.mmd_prdc import mmd_score, prdc_scores
from m1pipe.synthesis.scores import Definition, Ideal, Score
from m1pipe.synthesis.utility import ClassedRows

N_EDGES = 50  # of the bins of each gene
TOP_GENES = 10  # of each class
_TINY = 1e-10
_CLASSIFIED = {
    "accuracy": "trained on synthetic: share of held-out samples whose class is predicted",
    "avg_pr_macro": "area under precision and recall, mean over classes",
    "avg_pr_weight": "the same, classes weighted by size",
    "f1": "F1, classes weighted by size",
    "auroc": "ROC-AUC of each class against the rest, mean",
}
_KINDS: dict[str, tuple[Ideal, str]] = {
    **{f"{name}_synthetic": ("higher", says) for name, says in _CLASSIFIED.items()},
    **{f"{name}_real": ("shown", "the same, trained on real samples") for name in _CLASSIFIED},
    "feature_overlap_count": ("higher", "top ten genes of classes that both classifiers share"),
    "feature_overlap_proportion": ("higher", "the same over those of the synthetic samples"),
    "MMD_train": ("lower", "MMD squared from training samples, kernel exp(-d^2 / genes)"),
    "MMD_test": ("lower", "the same against held-out samples"),
    "MMD_base": ("shown", "training against held-out samples"),
    "kl_mean_train": ("lower", "divergence of histograms from training samples, mean over genes"),
    "kl_mean_test": ("lower", "the same from held-out samples"),
    "kl_mean_base": ("shown", "of training from held-out samples"),
    "discriminative_score": ("lower", "F1 of a classifier that finds the real samples"),
    "distance_to_closest": ("higher", "of a synthetic sample to a training sample, mean"),
    "distance_to_closest_base": ("shown", "of a held-out sample to a training sample, mean"),
    "prdc_precision": ("higher", "synthetic samples among training samples"),
    "prdc_recall": ("higher", "training samples among synthetic samples"),
    "prdc_density": ("higher", "training samples about a synthetic one"),
    "prdc_coverage": ("higher", "training samples with a synthetic one nearby"),
    "prdc_density_test": ("higher", "the same with held-out samples"),
    "prdc_coverage_test": ("higher", "the same with held-out samples"),
    "tpr_at_fpr_01": ("lower", "GAN-Leaks: members found at 10 % false positives"),
}  # fmt: skip
_BASES = {
    **{f"{name}_synthetic": f"{name}_real" for name in _CLASSIFIED},
    **dict.fromkeys(("MMD_train", "MMD_test"), "MMD_base"),
    **dict.fromkeys(("kl_mean_train", "kl_mean_test"), "kl_mean_base"),
    "distance_to_closest": "distance_to_closest_base",
}
CAMDA = tuple(
    Definition("camda", name, name, ideal, says, has_interval=False)
    for name, (ideal, says) in _KINDS.items()
)


def camda_scores(x: ClassedRows, s: ClassedRows, h: ClassedRows, *, seed: int) -> list[Score]:
    """All scores in `CAMDA`; beside a score what the challenge calls its base.

    Parameters
    ----------
    x, s, h : ClassedRows
        Training, synthetic and held-out samples, as logarithms.
    seed : int
        Of the split of the discriminative score.
    """
    values = camda_values(x, s, h, seed=seed)
    return [
        Score(
            definition=of,
            value=values[of.name],
            ceiling=values.get(_BASES.get(of.name, ""), np.nan),
            n_independent=len(h.codes),
        )
        for of in CAMDA
    ]


def camda_values(x: ClassedRows, s: ClassedRows, h: ClassedRows, *, seed: int) -> dict[str, float]:
    """Every score in `CAMDA` by name; parameters are those of `camda_scores`."""
    standardised = fit_gene_transform("standardize", [x.X]).apply
    of_synthetic, genes_s = _classified(standardised(s.X), s.codes, standardised(h.X), h.codes)
    of_real, genes_x = _classified(standardised(x.X), x.codes, standardised(h.X), h.codes)
    shared = len(genes_s & genes_x)
    mmd = partial(mmd_score, sigma=float(np.sqrt(x.X.shape[1] / 2)))
    on_train, on_test = prdc_scores(x.X, s.X), prdc_scores(h.X, s.X)
    nearest = {"distance_to_closest": s.X, "distance_to_closest_base": h.X}
    attack = [gan_leaks(s.X, h.X, rows.X) for rows in (x, h)]
    return {
        **{f"{name}_synthetic": value for name, value in of_synthetic.items()},
        **{f"{name}_real": value for name, value in of_real.items()},
        "feature_overlap_count": shared,
        "feature_overlap_proportion": shared / len(genes_s),
        "MMD_train": float(mmd(x.X, s.X)["mmd2"]),
        "MMD_test": float(mmd(h.X, s.X)["mmd2"]),
        "MMD_base": float(mmd(h.X, x.X)["mmd2"]),
        "kl_mean_train": histogram_divergence(x.X, s.X),
        "kl_mean_test": histogram_divergence(h.X, s.X),
        "kl_mean_base": histogram_divergence(h.X, x.X),
        "discriminative_score": discriminative_f1(x.X, s.X, h.X, seed),
        **{name: float(-gan_leaks(x.X, x.X, A).mean()) for name, A in nearest.items()},
        **{f"prdc_{name}": float(value) for name, value in on_train.items()},
        **{f"prdc_{name}_test": float(on_test[name]) for name in ("density", "coverage")},
        "tpr_at_fpr_01": attack_values(*attack)["tpr10"],
    }  # fmt: skip


def _classified(
    X: np.ndarray, codes: np.ndarray, test: np.ndarray, true: np.ndarray
) -> tuple[dict[str, float], set[int]]:
    """What a classifier trained on X reaches on the test, and the genes that it weighs most."""
    if len(np.unique(codes)) < 2:
        raise ValueError("the classifier of the preset needs two classes; found one in a set")
    basis, rows = np.linalg.qr(X.T)
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(rows.T, codes)
    found, p = model.predict(test @ basis), model.predict_proba(test @ basis)
    by_class = {c: p[:, k] for k, c in enumerate(model.classes_)}
    classes, sizes = np.unique(true, return_counts=True)
    of = [(true == c, by_class.get(c, np.zeros(len(true)))) for c in classes]
    precision = [average_precision_score(*pair) for pair in of]
    top = [np.argsort(basis @ each.coef_[0])[-TOP_GENES:] for each in model.estimators_]
    values = {
        "accuracy": float(np.mean(found == true)),
        "avg_pr_macro": float(np.mean(precision)),
        "avg_pr_weight": float(np.average(precision, weights=sizes)),
        "f1": float(f1_score(true, found, average="weighted")),
        "auroc": float(np.mean([roc_auc_score(*pair) for pair in of])),
    }
    return values, set(np.concatenate(top).tolist())


def discriminative_f1(X: np.ndarray, S: np.ndarray, H: np.ndarray, seed: int) -> float:
    """F1 of finding real samples, by logistic regression on seven tenths of X and S.

    Parameters
    ----------
    X, S, H : ndarray, shape (n_samples, n_genes)
        Training, synthetic and held-out samples; tested on all of H and the rest of the others.
    seed : int
        Of the split.
    """
    both, is_real = np.concatenate([X, S]), np.repeat([1, 0], [len(X), len(S)])
    train, test, of_train, of_test = train_test_split(
        both, is_real, test_size=0.3, random_state=seed
    )
    standardised = fit_gene_transform("standardize", [train]).apply
    basis, rows = np.linalg.qr(standardised(train).T)
    model = LogisticRegression(max_iter=1000).fit(rows.T, of_train)
    found = model.predict(standardised(np.concatenate([H, test])) @ basis)
    return float(f1_score(np.append(np.ones(len(H), int), of_test), found))


def histogram_divergence(X: np.ndarray, S: np.ndarray) -> float:
    """Kullback-Leibler divergence of each gene's histogram, X from S, mean over genes.

    Parameters
    ----------
    X, S : ndarray, shape (n_samples, n_genes)
        Bins are of equal width over both; genes that are constant in both count as 0.
    """
    low = np.minimum(X.min(axis=0), S.min(axis=0)).astype(np.float64)
    width = (np.maximum(X.max(axis=0), S.max(axis=0)) - low) / (N_EDGES - 1)
    varies = width > 0

    def shares(rows: np.ndarray) -> np.ndarray:
        places = (rows[:, varies] - low[varies]) / width[varies]
        bins = np.clip(places.astype(int), 0, N_EDGES - 2)
        density = [np.bincount(of, minlength=N_EDGES - 1) / len(rows) for of in bins.T]
        found: np.ndarray = np.array(density) / width[varies, None] + _TINY
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    p, q = shares(X), shares(S)
    return float((p * np.log(p / q)).sum() / len(width))
