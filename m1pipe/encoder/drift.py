"""Drift: how far a new file lies from the data that an encoder was trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.data.recipe import MIN_COVERAGE, Aligned
from m1pipe.encoder.summary import gene_scale, measured_rows
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import counted

GAP_SAMPLES = 512
MOST_SAMPLED = 2_000
FAR = 0.1  # share of samples beyond the training data from which on they are said to lie far off
FIRST_NAMES = 3


@dataclass(frozen=True, eq=False)
class Drift:
    """A new file beside the training data.

    Attributes
    ----------
    n_samples : int
        Of the file.
    n_genes : int
        Of the encoder.
    missing : tuple of str
        Genes of the encoder that the file lacks; they are imputed by their training mean.
    units : tuple of str
        Of the file, and of training.
    gene_shift : float
        Median over genes of the distance between the file's mean and the training mean, in
        training standard deviations.
    genes_shifted : float
        Share of genes whose mean lies more than one standard deviation off.
    beyond : float
        Share of samples beyond the 99 % quantile of the training samples' reconstruction error.
    beyond_held_out : float or None
        The same share of the encoder's own validation samples: what is to be expected.
    n_missing : int
        Levels that are NaN; they are imputed by their training mean and count for nothing here.
    gap_shift : ndarray, shape (n_latent,), or None
        Root mean square distance, in standard deviations, by which the missing genes move each
        latent of training-like samples; None where no gene is missing, and for counts.
    """

    n_samples: int
    n_genes: int
    missing: tuple[str, ...]
    units: tuple[str, str]
    gene_shift: float
    genes_shifted: float
    beyond: float
    beyond_held_out: float | None
    n_missing: int
    gap_shift: np.ndarray | None

    def lines(self) -> list[str]:
        """What the numbers say, a sentence a line."""
        lines = []
        if self.units[0] != self.units[1]:
            lines.append(f"units: {self.units[0]} brought to {self.units[1]}")
        if self.n_missing:
            share = self.n_missing / (self.n_samples * (self.n_genes - len(self.missing)))
            lines.append(
                f"{counted(self.n_missing, 'level is', 'levels are')} missing ({share:.2%} of "
                "the file's)"
            )
        if self.gap_shift is not None:
            named = ", ".join(self.missing[:FIRST_NAMES])
            more = ", ..." if len(self.missing) > FIRST_NAMES else ""
            lines.append(
                f"{counted(len(self.missing), 'missing gene is', 'missing genes are')} imputed "
                "by their training means "
                f"({named}{more}): on training-like samples that moves the latents by "
                f"{np.median(self.gap_shift):.2f} sd (median), {self.gap_shift.max():.2f} sd (most)"
            )
        lines.append(
            f"gene means lie {self.gene_shift:.2f} training sd off (median), "
            f"{self.genes_shifted:.1%} of genes more than one"
        )
        lines.append(self.beyond_text)
        return lines

    @property
    def beyond_text(self) -> str:
        """How many samples are unlike the training data, beside what is to be expected."""
        expected = ""
        if self.beyond_held_out is not None:
            expected = f" (of held-out training samples: {self.beyond_held_out:.1%})"
        return (
            f"{self.beyond:.1%} of samples are reconstructed worse than 99 % of the training "
            f"samples{expected}"
        )

    @property
    def is_far(self) -> bool:
        """Whether clearly more samples than expected are unlike the training data."""
        return self.beyond >= max(FAR, 3 * (self.beyond_held_out or 0))


def drift_range(encoder: Encoder) -> dict[str, Any]:
    """What new samples are compared with: levels of the training samples, and how well they fit.

    Returns
    -------
    dict
        `gene_means` and `gene_sds` in the units of training (None of the latter where the
        transform is not affine, and for counts), `error_q99` (99 % quantile of the mean squared
        standardised error of reconstruction) and `error_beyond` (share of the validation samples
        beyond it).
    """
    sds = None
    if encoder.scaler.levels is None and not encoder.module.of_counts:
        sds = (gene_scale(encoder.scaler, encoder.pca) * encoder.scaler.scale).tolist()
    known = {name: encoder.summary[name] for name in ("error_q99", "error_beyond")}
    return {"gene_means": encoder.recipe.gene_means.tolist(), "gene_sds": sds, **known}


def encode_with_drift(
    encoder: Encoder, data: Any, *, min_coverage: float = MIN_COVERAGE
) -> tuple[np.ndarray, Drift]:
    """Latent means of a file, and how far it lies from the training data, in one pass.

    The distance is that of all samples, or of 20,000 of them.

    Parameters
    ----------
    encoder : Encoder
    data, min_coverage
        As for `Encoder.align`.

    Returns
    -------
    Z : ndarray of float32, shape (n_samples, n_latent)
        What `Encoder.transform` returns.
    drift : Drift

    Raises
    ------
    InputError
        As `Encoder.align`.
    """
    aligned = encoder.align(data, min_coverage=min_coverage, keep_missing=True)
    present = aligned.present
    Z = np.empty((aligned.shape[0], encoder.n_latent), dtype=np.float32)
    judged = np.zeros(aligned.shape[0], dtype=bool)
    judged[measured_rows(aligned.shape[0], seed=0)] = True
    errors: list[np.ndarray] = []
    total, n_known, n_missing = np.zeros(aligned.shape[1]), np.zeros(aligned.shape[1]), 0
    for here, X, codes in encoder.blocks(aligned):
        Z[here] = encoder.encode_array(X, codes)
        n_missing += int(np.isnan(X).sum())
        some = judged[here]
        if some.any():
            own = None if codes is None else codes[some]
            found, levels, known = _residuals(encoder, X[some], Z[here][some], own, present)
            errors.append(found)
            total += levels
            n_known += known
    return Z, _drift(encoder, aligned, total, n_known, np.concatenate([*errors, []]), n_missing)


def sampled_drift(encoder: Encoder, aligned: Aligned, rows: np.ndarray) -> Drift:
    """How far some samples of a file lie from the training data.

    Parameters
    ----------
    encoder : Encoder
    aligned : Aligned
        From `Encoder.align`, with missing levels kept.
    rows : ndarray of int, shape (n_samples,)
        Rows of the file; of more than `MOST_SAMPLED`, so many are drawn.
    """
    if rows.size > MOST_SAMPLED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_SAMPLED, replace=False))
    codes = encoder.codes(aligned.matrix)
    X, here = aligned.take(rows), None if codes is None else codes[rows]
    Z = encoder.encode_array(X, here)
    errors, total, n_known = _residuals(encoder, X, Z, here, aligned.present)
    return _drift(encoder, aligned, total, n_known, errors, int(np.isnan(X).sum()), rows.size)


def _residuals(
    encoder: Encoder, X: np.ndarray, Z: np.ndarray, codes: np.ndarray | None, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error of every sample, and the sum and number of the known levels of every gene."""
    scale = gene_scale(encoder.scaler, encoder.pca)
    fitted = encoder.expected_inputs(Z, X, codes)
    transformed, known = encoder.inputs(X, codes), ~np.isnan(X)
    squares = np.where(known, ((transformed - fitted) / scale) ** 2, 0)[:, present]
    errors = squares.mean(axis=1) / known[:, present].mean(axis=1)
    total = np.where(known, transformed, 0).sum(axis=0, dtype=np.float64)
    return errors, total, known.sum(axis=0)


def gap_shift(encoder: Encoder, present: np.ndarray) -> np.ndarray:
    """How far genes imputed by their training mean move the latents of training-like samples.

    The samples are drawn from the stored principal components with the variance that they leave
    of each gene: no training sample is kept with a model, and none is needed.

    Parameters
    ----------
    encoder : Encoder
    present : ndarray of bool, shape (n_genes,)
        Genes that are not missing.

    Returns
    -------
    ndarray, shape (n_latent,)
        Root mean square shift of each latent in its own standard deviations; 0 for a latent that
        does not vary.
    """
    pca = encoder.pca
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((GAP_SAMPLES, len(pca.variances))) * np.sqrt(pca.variances)
    noise = rng.standard_normal((GAP_SAMPLES, pca.mean.size)) * np.sqrt(pca.residual_variances)
    whole = pca.reconstruct(scores) + noise.astype(np.float32)
    codes = None
    if encoder.condition is not None:
        shares = np.asarray(encoder.condition.counts) / sum(encoder.condition.counts)
        codes = rng.choice(encoder.condition.n_classes, GAP_SAMPLES, p=shares)
        whole += encoder.condition.shift[codes]
    gapped = np.where(present, whole, pca.mean)
    full, part = (encoder.encode_array(encoder.scaler.invert(X), codes) for X in (whole, gapped))
    spread = full.std(axis=0, dtype=np.float64)
    moved = np.sqrt(np.mean((part - full).astype(np.float64) ** 2, axis=0))
    return np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0)


def _drift(
    encoder: Encoder,
    aligned: Aligned,
    total: np.ndarray,
    n_known: np.ndarray,
    errors: np.ndarray,
    n_missing: int,
    n_samples: int | None = None,
) -> Drift:
    q99 = encoder.summary["error_q99"]
    missing = tuple(aligned.match.missing)
    of_counts, scale = encoder.module.of_counts, gene_scale(encoder.scaler, encoder.pca)
    mean = total / np.maximum(n_known, 1)
    shift = np.abs((mean - encoder.pca.mean) / scale)[aligned.present & (n_known > 0)]
    return Drift(
        n_samples=aligned.shape[0] if n_samples is None else n_samples,
        n_genes=aligned.shape[1],
        missing=missing,
        units=(str(aligned.matrix.units), str(encoder.units)),
        gene_shift=float(np.median(shift)),
        genes_shifted=float((shift > 1).mean()),
        beyond=float((errors > q99).mean()) if q99 is not None and len(errors) else 0.0,
        beyond_held_out=encoder.summary["error_beyond"],
        n_missing=n_missing,
        gap_shift=gap_shift(encoder, aligned.present) if missing and not of_counts else None,
    )
