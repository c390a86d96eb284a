"""The figures of the cross-validation report, drawn by `m1pipe.plots`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.evaluation.result import CrossvalResult, fold_losses
from m1pipe.plots import comparison, latent, style, training
from m1pipe.reports.facts import ACTIVE_KL, runs_of
from m1pipe.reports.layout import Picture
from m1pipe.reports.terms import (
    ENSEMBLE_SUFFIX,
    OWN_SUFFIX,
    headline_phrase,
    loss_label,
    metric_of,
)
from m1pipe.reports.words import family

WIDTH = 9.2
_NEAR = 0.9


def _loss(result: CrossvalResult) -> str:
    return loss_label(result.metric, result.info.get("target_units"))


def row_colours(result: CrossvalResult) -> dict[str, str]:
    """Colour of every row: encoders from the palette, the others grey."""
    known = result.info.get("encoders", {})
    plain = {m: m.removesuffix(OWN_SUFFIX).removesuffix(ENSEMBLE_SUFFIX) for m in result.models}
    encoders = [m for m in result.models if plain[m] in known]
    return dict.fromkeys(result.models, style.MUTED) | style.colours(encoders)


def ladder(result: CrossvalResult, order: Sequence[str]) -> Picture:
    """Loss of every row in every fold as a share of the yardstick's in the same fold."""
    yardstick = result.models[0]
    folds = fold_losses(result)
    base = folds[folds["model"] == yardstick].set_index(["repeat", "fold"])["loss"]
    keys = pd.MultiIndex.from_frame(folds[["repeat", "fold"]])
    folds = folds.assign(loss=folds["loss"].to_numpy() / base.reindex(keys).to_numpy())
    shown = [model for model in order if model != yardstick]
    near = folds.loc[folds["model"].isin(shown), "loss"].max() > _NEAR
    figure, axes = style.panels(width=WIDTH, height=0.9 + 0.34 * len(shown))
    with style.styled():
        comparison.plot_ladder(
            axes[0, 0],
            folds,
            shown,
            label=f"{metric_of(result.metric).label} as a share of that of {yardstick}, same fold",
            colours=row_colours(result),
            reference=1.0 if near else None,
        )
    return Picture(
        caption=f"Test loss of every model divided by that of {yardstick} in the same fold: dots "
        f"are folds, diamonds their means, best on top; left is better, 1 is {yardstick}. "
        "Models on encoders are coloured.",
        alt=f"Loss of {', '.join(shown)} as a share of {yardstick}'s, by fold",
        source=style.data_uri(figure),
    )


def differences(result: CrossvalResult) -> Picture | None:
    """Declared differences with their intervals and the fold differences behind them."""
    table = family(result)
    table = table[np.isfinite(table["ci_low"])] if len(table) else table
    apart = table[table["model_b"] != result.models[0]] if len(table) else table
    table = apart if len(apart) else table
    if not len(table):
        return None
    names = [f"{a} \N{EN DASH} {b}" for a, b in zip(table.model_a, table.model_b, strict=True)]
    wide = fold_losses(result).pivot(index=["repeat", "fold"], columns="model", values="loss")
    points = [
        (wide[a] - wide[b]).to_numpy() for a, b in zip(table.model_a, table.model_b, strict=True)
    ]
    colours = row_colours(result)
    figure, axes = style.panels(width=WIDTH, height=0.9 + 0.34 * len(table))
    label = f"difference in {_loss(result)}"
    with style.styled():
        comparison.plot_differences(
            axes[0, 0],
            table.assign(name=names),
            label=f"{label}; left: the first is better",
            points=points,
            colours=[colours[m] for m in table["model_a"]],
        )
    return Picture(
        caption="Declared comparisons: mean difference over folds (diamond) with its 95 % interval "
        f"by the {headline_phrase(result.info)} (bar, not adjusted), and the difference in every "
        f"fold (dots). Those against {result.models[0]} are in the table.",
        alt="Differences in loss with intervals: " + ", ".join(names),
        source=style.data_uri(figure),
    )


def fold_pairs(result: CrossvalResult, order: Sequence[str]) -> Picture:
    """Every fold under every row but the yardstick, joined: whether the folds agree."""
    shown = [model for model in order if model != result.models[0]] or list(order)
    figure, axes = style.panels(width=WIDTH, height=3.4)
    with style.styled():
        comparison.plot_fold_pairs(
            axes[0, 0],
            fold_losses(result),
            shown[::-1],
            label=_loss(result),
        )
    return Picture(
        caption="The same test folds under every model: each grey line is one fold, blue is the "
        "mean; lower is better. Lines that run in parallel are folds that agree. "
        f"The model {result.models[0]} is left out.",
        alt="Test loss of every fold under every model, paired by fold",
        source=style.data_uri(figure),
    )


def curves(result: CrossvalResult) -> Picture | None:
    """Training curves: one row of panels an encoder row, one column a term of the objective."""
    found = {
        name: [run for run in facts.get("runs", []) if len(run.get("history") or [])]
        for name, facts in result.info.get("encoders", {}).items()
    }
    found = {name: runs for name, runs in found.items() if runs}
    if not found:
        return None
    colours = row_colours(result)
    figure, axes = style.panels(len(found), 3, width=WIDTH, height=0.5 + 2.1 * len(found))
    with style.styled():
        for row, (name, runs) in zip(axes, found.items(), strict=True):
            _draw_curves(row, name, runs, colours[name])
    return Picture(
        caption="Training curves of every encoder. Solid: validation rows; dashed: training rows; "
        "triangles: epochs whose weights were kept; more than ten runs are shown as their median "
        "and range. The loss is reconstruction (negative log-likelihood) plus beta times KL; at "
        "beta 1, after the warm-up, minus the ELBO. The first tenth of the epochs may leave the "
        "panels.",
        alt=f"Training and validation curves of {', '.join(found)} by epoch",
        source=style.data_uri(figure),
    )


def _draw_curves(
    axes: np.ndarray, name: str, runs: Sequence[Mapping[str, Any]], colour: str
) -> None:
    histories = [pd.DataFrame(run["history"]) for run in runs]
    best = [run["best_epoch"] for run in runs if run.get("best_epoch") is not None]
    training.plot_history(axes, histories, name=name, colour=colour, best=best)


def latent_health(result: CrossvalResult) -> Picture | None:
    """KL of every latent unit and reconstruction beside PCA of the same width."""
    runs = runs_of(result)
    spectra = _by_name((name, run.get("kl_per_unit")) for name, run in runs)
    scored = _by_name((name, (run.get("r2"), run.get("pca_r2"))) for name, run in runs)
    if not spectra and not scored:
        return None
    figure, axes = style.panels(1, 2, width=WIDTH, height=max(2.6, 1.0 + 0.3 * len(scored)))
    colours = row_colours(result)
    with style.styled():
        _draw_spectra(axes[0, 0], spectra, colours)
        latent.plot_reconstruction(axes[0, 1], scored, label="reconstruction R2", colours=colours)
        axes[0, 1].set_title("reconstruction beside PCA")
    return Picture(
        caption="Left: what each latent unit carries (mean KL divergence from the prior), units in "
        f"falling order; dashed: {ACTIVE_KL} nats, above which a unit counts as active. Right: "
        "share of the genes' variance that comes back through each encoder (diamonds), beside as "
        "many principal components of the same rows (open circles).",
        alt="KL divergence by latent unit, and reconstruction R2 of encoders and of PCA",
        source=style.data_uri(figure),
    )


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """Values by name, those that are missing left out."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        numbers = np.atleast_1d(np.asarray([] if value is None else value, dtype=float))
        if numbers.size and np.isfinite(numbers).all():
            found.setdefault(name, []).append(numbers)
    return found


def _draw_spectra(
    ax: Axes, spectra: Mapping[str, Sequence[np.ndarray]], colours: Mapping[str, str]
) -> None:
    ax.set_title("what each latent unit carries")
    if not spectra:
        training.say_missing(ax)
    for name, values in spectra.items():
        latent.plot_unit_spectrum(
            ax, values, threshold=ACTIVE_KL, label="KL (nats)", colour=colours[name], name=name
        )
    if len(spectra) > 1:
        ax.legend(loc="best")
