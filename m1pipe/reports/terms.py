"""What the short names in a result mean: metrics, tests, models, checks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from m1pipe.evaluation.compared_models import GENES, Variant, parse_model

HEADLINE_TEST = "nadeau_bengio"


class Metric(NamedTuple):
    """A score: its name in a sentence and in the head of a table, and which way is better."""

    label: str
    head: str
    better: str

    @property
    def column(self) -> str:
        """Name in the head of a table, with the direction of better values."""
        arrow = "\N{DOWNWARDS ARROW}" if self.better == "lower" else "\N{UPWARDS ARROW}"
        return f"{self.head}\N{NO-BREAK SPACE}{arrow}"


METRICS = {
    "mse": Metric("mean squared error", "MSE", "lower"),
    "standardized_mse": Metric(
        "squared error of a target over its variance", "standardised MSE", "lower"
    ),
    "mae": Metric("mean absolute error", "MAE", "lower"),
    "r2": Metric("pooled R2 against the training means", "R2", "higher"),
    "r2_median": Metric("median R2 of a target", "median R2", "higher"),
    "r2_within": Metric("R2 within strata, against their training means", "R2 within", "higher"),
    "fraction_r2": Metric("R2 of isoform fractions", "R2 of fractions", "higher"),
    "pearson": Metric("median Pearson correlation per target", "Pearson", "higher"),
    "log_loss": Metric("log loss", "log loss", "lower"),
    "accuracy": Metric("accuracy", "accuracy", "higher"),
    "balanced_accuracy": Metric("balanced accuracy", "balanced accuracy", "higher"),
    "macro_f1": Metric("macro F1", "macro F1", "higher"),
    "roc_auc": Metric("area under the ROC curve", "ROC AUC", "higher"),
    "average_precision": Metric("average precision", "average precision", "higher"),
    "micro_f1": Metric("micro F1", "micro F1", "higher"),
    "roc_auc_micro": Metric("area under the pooled ROC curve", "micro ROC AUC", "higher"),
    "precision_at_1": Metric("precision at 1", "P@1", "higher"),
    "precision_at_5": Metric("precision at 5", "P@5", "higher"),
    "brier": Metric("Brier score", "Brier", "lower"),
    "calibration_error": Metric("expected calibration error", "ECE", "lower"),
    "average_precision_micro": Metric("pooled average precision", "micro AP", "higher"),
}

TESTS = {
    "strata_flip": "sign flips over strata",
    "nadeau_bengio": "corrected t",
    "clustered_t": "t over donors",
    "paired_t": "t over samples",
    "wilcoxon": "Wilcoxon",
    "sign_flip": "sign flips",
    "bootstrap": "bootstrap",
}

MODELS = {
    "mean": "mean of every target in the training samples",
    "prior": "class frequencies in the training samples",
    "stratum_mean": "training mean of the test sample's own stratum, which it is given",
    "gene": "linear regression on the isoform's own gene",
    "ridge_gene": "ridge regression on the genes, and the isoform's own gene",
    "ridge": "ridge regression on the genes",
    "logistic": "penalised logistic regression on the genes",
    "ridge_prior": "ridge regression on the genes, the covariance of the PCA's samples as prior",
    "logistic_prior": "penalised logistic regression on the genes, the covariance of the PCA's "
    "samples as prior",
    "transfer_ridge": "ridge regression on the genes, beside a score of other studies' labels",
    "transfer_logistic": "penalised logistic regression on the genes, beside a score of other "
    "studies' labels",
    "raw": "linear model and network on the genes",
    "pca": "linear model and network on PCA scores of the encoder's samples and width",
    "pca_fold": "linear model and network on PCA scores of the training fold",
}

_VARIANTS: dict[Variant, str] = {
    "weighted": "classes weighted alike in its loss",
    "bootstrap": "with training samples of each class resampled",
    "augmented": "with synthetic samples added to its training samples",
}
_SPOKEN = {"mean": "the training mean", "prior": "the class frequencies"}

GUARDS = {  # what each check looks for
    "group_on_both_sides": "donors on both sides of a split",
    "group_not_checked": "columns like donors, not grouped by",
    "nearly_paired": "ids that nearly match",
    "units_unknown": "unknown units",
    "copies_on_both_sides": "copies on both sides of a split",
    "seen_by_encoder": "labelled samples that an encoder saw",
    "copies_seen_by_encoder": "copies that an encoder saw",
    "source_overlap": "samples of other studies that are in X",
    "conditioned_on_label": "an encoder given the label",
    "widths_differ": "encoders of different width",
    "confounded_label": "a confounded label",
    "class_in_few_groups": "a class in few donors",
    "small_strata": "small strata",
    "few_groups": "few donors",
    "liberal_test": "many repeats of few samples",
    "constant_targets": "constant targets",
    "missing_levels": "missing levels",
    "nothing_tuned": "too few samples to tune on",
    "collapsed_predictor": "constant predictions",
    "dead_units": "dead hidden units",
    "collapsed_latents": "latents that carry nothing",
    "latent_follows_depth": "a latent that follows depth",
    "depth_differs": "depths unlike the encoder's",
    "far_from_training": "samples unlike the encoder's",
    "weak_encoder": "an encoder below PCA",
    "labels_of_same_samples": "labels made from X",
    "labels_not_learned": "labels that no model learned",
    "labels_too_few": "labels too rare or too common",
    "below_yardstick": "a model no better than the baseline",
    "not_testable": "pairs without a p value",
    "score_not_computed": "scores not computed",
}


def spoken(model: str) -> str:
    """A model as a sentence names it."""
    return _SPOKEN.get(model, model)


def headline_test(info: Mapping[str, Any]) -> str:
    """Name of the headline test of a result with these facts."""
    return str(info.get("headline", HEADLINE_TEST))


def headline_phrase(info: Mapping[str, Any]) -> str:
    """The headline test as a sentence names it."""
    if headline_test(info) == "strata_flip":
        return "sign-flip test over left-out strata"
    return "corrected resampled t-test over folds"


def metric_of(name: str) -> Metric:
    """Metric by its short name; an unknown one goes by that name, lower taken as better."""
    return METRICS.get(name, Metric(name.replace("_", " "), name.replace("_", " "), "lower"))


def loss_label(metric: str, target_units: object) -> str:
    """Name of the headline loss with its unit, where that is known.

    >>> loss_label("log_loss", None), loss_label("mse", "log2_tpm1 (target sum 1e6)")
    ('log loss (nats)', 'mean squared error (log2_tpm1\u00b2)')
    """
    label = metric_of(metric).label
    if metric == "log_loss":
        return f"{label} (nats)"
    if metric != "mse" or target_units in (None, "", "unknown"):
        return label
    return f"{label} ({str(target_units).split(' (')[0]}\N{SUPERSCRIPT TWO})"


def model_label(name: str, encoders: dict[str, dict[str, object]]) -> str:
    """What a model is; those on encoders by their width and weight of the KL."""
    if name in MODELS:
        return MODELS[name]
    model = parse_model(name, encoders)
    source = "raw" if model.source == GENES else model.source
    if source not in encoders and source not in MODELS:
        return ""
    inputs = _latents_label(source, encoders) if source in encoders else "PCA scores"
    if model.head == "ensemble":
        n = encoders.get(source, {}).get("n_seeds")
        text = f"mean prediction of the {f'{n} seeds' if n else 'seeds'} of {source}"
    elif model.head == "network":
        text = MODELS.get(source, f"linear model and network on {inputs}")
    else:
        text = f"penalised linear model on {'the genes and ' if model.adds_genes else ''}{inputs}"
    text += ", and the isoform's own gene" if model.own_gene else ""
    text += ", beside a score of other studies' labels" if model.transfer else ""
    return text if model.variant is None else f"{text}, {_VARIANTS[model.variant]}"


def _latents_label(name: str, encoders: dict[str, dict[str, object]]) -> str:
    """Latents of an encoder, by its width and weight of the KL."""
    width, beta = encoders[name].get("n_latent"), encoders[name].get("beta")
    kind = " (beta 0)" if beta == 0 else ""
    return f"the {f'{width} ' if width else ''}latents of {name}{kind}"


def guard_counts(raised: Iterable[str]) -> dict[str, int]:
    """How often each check found something, from the names of all alarms; 0 for the others."""
    found = Counter(raised)
    return {name: found[name] for name in dict.fromkeys([*GUARDS, *found])}
