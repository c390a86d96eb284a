"""The figures of the cross-validation report, drawn by `m1pipe.plots`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.tables import fold_losses
from m1pipe.plots import comparison, latent, style, training
from m1pipe.reports.facts import runs_of
from m1pipe.reports.layout import Picture
from m1pipe.reports.terms import metric_of
from m1pipe.reports.words import family

WIDTH = 9.2
_TERMS = (
    ("loss", "objective (minus ELBO at full beta)"),
    ("reconstruction", "reconstruction"),
    ("kl", "KL divergence"),
)
KL_THRESHOLD = 0.05


def row_colours(result: CrossvalResult) -> dict[str, str]:
    """Colour of every row: encoders from the palette, the others grey."""
    encoders = [m for m in result.models if m in result.info.get("encoders", {})]
    return dict.fromkeys(result.models, style.MUTED) | style.colours(encoders)


def ladder(result: CrossvalResult, order: Sequence[str]) -> Picture:
    """Loss of every row in every fold as a share of the yardstick's in the same fold."""
    yardstick = result.models[0]
    folds = fold_losses(result)
    base = folds[folds["model"] == yardstick].set_index(["repeat", "fold"])["loss"]
    keys = pd.MultiIndex.from_frame(folds[["repeat", "fold"]])
    folds = folds.assign(loss=folds["loss"].to_numpy() / base.reindex(keys).to_numpy())
    shown = [model for model in order if model != yardstick]
    figure, axes = style.panels(width=WIDTH, height=0.9 + 0.34 * len(shown))
    with style.styled():
        comparison.plot_ladder(
            axes[0, 0],
            folds,
            shown,
            label=f"{metric_of(result.metric).label} as a share of that of {yardstick}, same fold",
            colours=row_colours(result),
            reference=1.0,
        )
    return Picture(
        caption=f"Test loss of every row divided by that of {yardstick} in the same fold: dots are "
        f"folds, diamonds their means, best on top; left is better. Dashed: {yardstick}. "
        "Encoder rows are coloured.",
        alt=f"Loss of {', '.join(shown)} as a share of {yardstick}'s, by fold",
        source=style.data_uri(figure),
    )


def differences(result: CrossvalResult) -> Picture | None:
    """Declared differences with their intervals and the fold differences behind them."""
    table = family(result)
    table = table[np.isfinite(table["ci_low"])] if len(table) else table
    if not len(table):
        return None
    names = [f"{a} \N{EN DASH} {b}" for a, b in zip(table.model_a, table.model_b, strict=True)]
    wide = fold_losses(result).pivot(index=["repeat", "fold"], columns="model", values="loss")
    points = [
        (wide[a] - wide[b]).to_numpy() for a, b in zip(table.model_a, table.model_b, strict=True)
    ]
    colours = row_colours(result)
    figure, axes = style.panels(width=WIDTH, height=0.9 + 0.34 * len(table))
    label = f"difference in {metric_of(result.metric).label}{_unit(result)}"
    with style.styled():
        comparison.plot_differences(
            axes[0, 0],
            table.assign(name=names),
            label=f"{label}; left: the first row is better",
            points=points,
            colours=[colours[m] for m in table["model_a"]],
        )
    return Picture(
        caption="Declared comparisons: mean difference over folds (diamond) with its 95 % interval "
        "by the corrected resampled t-test (bar, not adjusted), and the difference in every fold "
        "(dots).",
        alt="Differences in loss with intervals: " + ", ".join(names),
        source=style.data_uri(figure),
    )


def fold_pairs(result: CrossvalResult, order: Sequence[str]) -> Picture:
    """Every fold under every row, joined: whether the folds agree."""
    figure, axes = style.panels(width=WIDTH, height=3.4)
    with style.styled():
        comparison.plot_fold_pairs(
            axes[0, 0],
            fold_losses(result),
            list(order)[::-1],
            label=f"{metric_of(result.metric).label}{_unit(result)}",
        )
    return Picture(
        caption="The same test folds under every row: each grey line is one fold, blue is the "
        "mean; lower is better. Lines that run in parallel are folds that agree.",
        alt="Test loss of every fold under every row, paired by fold",
        source=style.data_uri(figure),
    )


def curves(result: CrossvalResult) -> list[Picture]:
    """Training curves, one picture a row of encoders."""
    pictures = []
    for name, facts in result.info.get("encoders", {}).items():
        runs = [run for run in facts.get("runs", []) if len(run.get("history") or [])]
        if runs:
            pictures.append(_curve_picture(name, facts, runs, row_colours(result)[name]))
    return pictures


def _curve_picture(
    name: str, facts: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], colour: str
) -> Picture:
    histories = [pd.DataFrame(run["history"]) for run in runs]
    terms = [t for t in _TERMS if t[0] != "kl" or facts.get("beta") != 0]
    figure, axes = style.panels(1, len(terms), width=WIDTH, height=2.5)
    best = [run["best_epoch"] for run in runs if run.get("best_epoch") is not None]
    with style.styled():
        for ax, (term, title) in zip(axes[0], terms, strict=True):
            training.plot_term(
                ax, histories, term, title=title, unit="nats per sample", colour=colour
            )
            training.clip_start(ax, histories, term)
            training.mark_epochs(ax, best)
    return Picture(
        caption=f"Training of {name} ({len(runs)} runs). Solid: validation rows; dashed: training "
        "rows; triangles: the epochs whose weights were kept. The first tenth of the epochs may "
        "leave the panel.",
        alt=f"Training and validation curves of {name} by epoch",
        source=style.data_uri(figure),
    )


def latent_health(result: CrossvalResult) -> Picture | None:
    """KL of every latent unit and reconstruction beside PCA of the same width."""
    runs = runs_of(result)
    spectra = [(n, run["kl_per_unit"]) for n, run in runs if len(run.get("kl_per_unit") or [])]
    scored = [(n, run["r2"], run["pca_r2"]) for n, run in runs if _has_numbers(run)]
    if not spectra and not scored:
        return None
    figure, axes = style.panels(1, 2, width=WIDTH, height=max(2.5, 0.9 + 0.22 * len(scored)))
    with style.styled():
        _draw_spectra(axes[0, 0], spectra, row_colours(result))
        names, own, pca = zip(*scored, strict=True) if scored else ((), (), ())
        latent.plot_reconstruction(axes[0, 1], names, own, pca, label="reconstruction R2")
        axes[0, 1].set_title("reconstruction beside PCA")
    return Picture(
        caption="Left: what each latent unit carries (mean KL divergence from the prior), units in "
        f"falling order; dashed: {KL_THRESHOLD} nats, above which a unit counts as active. Right: "
        "share of the genes' variance that comes back through each encoder, beside as many "
        "principal components of the same rows.",
        alt="KL divergence by latent unit, and reconstruction R2 of encoders and of PCA",
        source=style.data_uri(figure),
    )


def _draw_spectra(ax: Any, spectra: Sequence[tuple[str, Any]], colours: Mapping[str, str]) -> None:
    ax.set_title("what each latent unit carries")
    if not spectra:
        training.say_missing(ax)
    for name in dict.fromkeys(name for name, _ in spectra):
        latent.plot_unit_spectrum(
            ax,
            [values for other, values in spectra if other == name],
            threshold=KL_THRESHOLD,
            label="KL (nats)",
            colour=colours[name],
        )


def _has_numbers(run: Mapping[str, Any]) -> bool:
    return all(run.get(k) is not None and np.isfinite(run[k]) for k in ("r2", "pca_r2"))


def _unit(result: CrossvalResult) -> str:
    if result.metric == "log_loss":
        return " (nats)"
    unit = result.info.get("target_units")
    return f" ({unit} squared)" if unit and result.metric == "mse" else ""
