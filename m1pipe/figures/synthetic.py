"""Figures of synthetic samples beside real ones."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from m1pipe.errors import InputError
from m1pipe.figures.samples import Pair, choose_genes
from m1pipe.plots import style
from m1pipe.plots.embedding import METHODS, Embedding, embed
from m1pipe.plots.heatmap import cluster_order, correlation_of, plot_correlation
from m1pipe.plots.scatter import legend_width, plot_classes, plot_sides
from m1pipe.plots.synthetic import plot_gene, plot_mean_variance, plot_variance_ratio
from m1pipe.synthesis.marginal import distances

N_GENES = 9
MOST_GENES = 100
WIDTH = 7.2
_MOST_PANELS = 36


def augmentation(pair: Pair, method: str = "pca", *, seed: int = 0) -> Figure:
    """Real and synthetic samples in two dimensions; with labels one panel a side.

    Parameters
    ----------
    pair : Pair
        From `load_pair`.
    method : str
        Key of `m1pipe.plots.embedding.METHODS`.
    seed : int

    Raises
    ------
    InputError
        As `embed`.
    """
    found = embed(pair.real, pair.synthetic, method, seed=seed)
    how = "fitted to the real samples" if found.fitted_on_real else "fitted to both together"
    title = f"Real and synthetic samples, {METHODS[method]} {how}"
    if pair.labels is None:
        figure, axes = style.panels(width=5.6, height=4.4)
        with style.styled():
            plot_sides(axes[0, 0], found.real, found.synthetic, axes=found.axes)
        return style.head(figure, title, pair.drawn)
    beside = legend_width(np.concatenate(pair.labels))
    figure, axes = style.panels(1, 2, width=7.4 + beside, height=4.2)
    with style.styled():
        _by_class(axes[0], found, pair.labels)
    return style.head(figure, title, pair.drawn)


def gene_distributions(pair: Pair, genes: Sequence[str] | None = None) -> Figure:
    """Distributions of single genes, real and synthetic.

    Parameters
    ----------
    pair : Pair
    genes : sequence of str, optional
        At most 36. Left out: nine from the best to the worst by their Kolmogorov-Smirnov
        statistic, in equal steps of rank.

    Raises
    ------
    InputError
        If a gene is not there, or there are too many.
    """
    n = min(len(pair.real), len(pair.synthetic))
    ks = distances(pair.real[:n], pair.synthetic[:n])[0]
    if genes is None:
        steps = np.linspace(0, len(ks) - 1, min(N_GENES, len(ks))).round().astype(int)
        chosen = np.argsort(ks, kind="stable")[steps]
    elif not 0 < len(genes) <= _MOST_PANELS:
        raise InputError(f"genes: expected 1 to {_MOST_PANELS}; found {len(genes)}")
    else:
        chosen = choose_genes(pair.genes, genes)
    n_columns = min(3, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    width = max(4.2, WIDTH * n_columns / 3)
    figure, axes = style.panels(n_rows, n_columns, width=width, height=0.8 + 1.9 * n_rows)
    with style.styled():
        for ax, j in zip(axes.flat, chosen, strict=False):
            heading = f"{pair.genes[j]} (KS {ks[j]:.2f})"
            plot_gene(ax, pair.real[:, j], pair.synthetic[:, j], title=heading, unit=pair.unit)
        for ax in axes.flat[len(chosen) :]:
            ax.set_axis_off()
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
    which = "from the closest gene to the furthest" if genes is None else "chosen genes"
    return style.head(figure, f"Levels in real and synthetic samples: {which}", pair.drawn)


def correlations(
    pair: Pair, genes: Sequence[str] | None = None, *, max_genes: int = MOST_GENES
) -> Figure:
    """Correlations of genes: real, synthetic, and their difference, in one order.

    Parameters
    ----------
    pair : Pair
    genes : sequence of str, optional
        Left out: those that vary most in the real samples.
    max_genes : int
        Most that are then taken.

    Raises
    ------
    InputError
        If a gene is not there, or fewer than two vary.
    """
    spread = pair.real.var(axis=0, dtype=np.float64)
    named = genes is not None
    chosen = np.sort(np.argsort(-spread, kind="stable")[:max_genes])
    if genes is not None:
        chosen = choose_genes(pair.genes, genes)
    chosen = chosen[spread[chosen] > 0]
    if len(chosen) < 2:
        raise InputError(
            f"genes: expected at least 2 that vary in the real samples; found {len(chosen)}"
        )
    real = correlation_of(pair.real[:, chosen])
    order = cluster_order(real)
    real = real[np.ix_(order, order)]
    made = correlation_of(pair.synthetic[:, chosen[order]])
    names = pair.genes[chosen[order]]
    pairs = np.triu_indices(len(names), 1)
    rms = float(np.sqrt(np.nanmean((made - real)[pairs] ** 2)))
    figure, axes = style.panels(1, 3, width=10.4, height=4.6)
    with style.styled():
        plot_correlation(axes[0, 0], real, names, title="real")
        plot_correlation(axes[0, 1], made, names, title="synthetic", names=False)
        plot_correlation(
            axes[0, 2],
            made - real,
            names,
            title=f"difference (RMS {rms:.3f})",
            label="synthetic - real",
            names=False,
        )
    which = "chosen genes" if named else f"the {len(names)} genes that vary most"
    title = f"Correlations of {which}, in the order of a clustering of the real ones"
    return style.head(figure, title, pair.drawn)


def mean_variance(pair: Pair) -> Figure:
    """Variance of every gene by its mean, and the ratio of the variances."""
    figure, axes = style.panels(1, 2, width=9.2, height=3.8)
    with style.styled():
        plot_mean_variance(axes[0, 0], pair.real, pair.synthetic, unit=pair.unit)
        plot_variance_ratio(axes[0, 1], pair.real, pair.synthetic, unit=pair.unit)
    title = f"Means and variances of {len(pair.genes):,} genes (lines: medians of tenths)"
    return style.head(figure, title, pair.drawn)


def _by_class(axes: np.ndarray, found: Embedding, labels: tuple[np.ndarray, np.ndarray]) -> None:
    """Two panels with the same limits, real and synthetic, coloured alike."""
    order = sorted((set(labels[0]) | set(labels[1])) - {""})
    sides = (("real", found.real, labels[0]), ("synthetic", found.synthetic, labels[1]))
    for ax, (name, places, classes) in zip(axes, sides, strict=True):
        last = name == "synthetic"
        plot_classes(ax, places, classes, axes=found.axes, order=order, legend=last, counts=False)
        ax.set_title(name)
    both = np.concatenate([found.real, found.synthetic])
    margin = 0.05 * np.ptp(both, axis=0)
    for ax in axes:
        ax.set(
            xlim=(both[:, 0].min() - margin[0], both[:, 0].max() + margin[0]),
            ylim=(both[:, 1].min() - margin[1], both[:, 1].max() + margin[1]),
        )
