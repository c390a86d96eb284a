"""What the short names in a result mean, in a reader's words: metrics, tests, rows."""

from dataclasses import dataclass

HEADLINE_TEST = "nadeau_bengio"
ALPHA = 0.05
ENOUGH_SEEDS = 3
RECOMMENDED_REPEATS = 5


@dataclass(frozen=True)
class Metric:
    """A score: its name in a sentence and in a table's head, and which way is better."""

    label: str
    head: str
    better: str

    @property
    def arrow(self) -> str:
        """Direction of better values, for a table's head."""
        return "\N{DOWNWARDS ARROW}" if self.better == "lower" else "\N{UPWARDS ARROW}"


METRICS = {
    "mse": Metric("mean squared error", "MSE", "lower"),
    "mae": Metric("mean absolute error", "MAE", "lower"),
    "r2": Metric("pooled R2 against the training means", "R2", "higher"),
    "pearson": Metric("median Pearson correlation per target", "Pearson", "higher"),
    "log_loss": Metric("log loss", "log loss", "lower"),
    "accuracy": Metric("accuracy", "accuracy", "higher"),
    "balanced_accuracy": Metric("balanced accuracy", "balanced accuracy", "higher"),
    "macro_f1": Metric("macro F1", "macro F1", "higher"),
    "roc_auc": Metric("area under the ROC curve", "ROC AUC", "higher"),
    "average_precision": Metric("average precision", "average precision", "higher"),
    "micro_f1": Metric("micro F1", "micro F1", "higher"),
    "roc_auc_micro": Metric("area under the pooled ROC curve", "micro ROC AUC", "higher"),
    "average_precision_micro": Metric("pooled average precision", "micro AP", "higher"),
}

TESTS = {
    "nadeau_bengio": "corrected t (folds)",
    "clustered_t": "t over donors",
    "paired_t": "t over samples",
    "wilcoxon": "Wilcoxon",
    "sign_flip": "sign flips",
    "bootstrap": "bootstrap",
}

ROWS = {
    "mean": "mean of every target in the training rows",
    "prior": "class frequencies in the training rows",
    "ridge": "ridge regression on the genes",
    "logistic": "penalised logistic regression on the genes",
    "pca_ridge": "ridge regression on PCA scores",
    "pca_logistic": "penalised logistic regression on PCA scores",
    "raw": "feed-forward network on the genes",
    "pca": "feed-forward network on PCA scores (rows and width of the encoder)",
    "pca_fold": "feed-forward network on PCA scores (fitted on the training fold)",
}


def metric_of(name: str) -> Metric:
    """Metric by its short name; an unknown one goes by that name, lower taken as better."""
    return METRICS.get(name, Metric(name.replace("_", " "), name.replace("_", " "), "lower"))


def test_label(name: str) -> str:
    """Name of a test for a table."""
    return TESTS.get(name, name.replace("_", " "))


def row_label(name: str, encoders: dict[str, dict[str, object]]) -> str:
    """What a row of the ladder is; encoder rows by their width and weight of the KL."""
    if name not in encoders:
        return ROWS.get(name, "")
    width, beta = encoders[name].get("n_latent"), encoders[name].get("beta")
    kind = "autoencoder" if beta == 0 else "variational autoencoder"
    units = f" ({width} latent units)" if width else ""
    return f"feed-forward network on the latent means of a {kind}{units}"
