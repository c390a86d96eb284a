"""The figures of a cross-validation's page, drawn by `m1pipe.plots`: addresses that hold them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.evaluation.compared_models import parse_model
from m1pipe.evaluation.result import CrossvalResult, fold_losses
from m1pipe.plots import comparison, style, training
from m1pipe.reports.page import BESIDE, WIDTH, picture
from m1pipe.reports.terms import loss_label, metric_of
from m1pipe.reports.verdicts import family

ACTIVE_KL = 0.05
MOST_CURVES = 6
_NEAR = 0.9
_MOST_HISTOGRAMS = 6
_MOST_LINES = 7


def model_colours(result: CrossvalResult) -> dict[str, str]:
    """Colour of every model: encoders from the palette, the others grey."""
    known = result.info.get("encoders", {})
    parsed = [parse_model(name, known) for name in result.models]
    encoders = [
        model.name
        for model in parsed
        if model.source in known and model.head in ("network", "ensemble") and not model.variant
    ]
    return dict.fromkeys(result.models, style.MUTED) | style.colours(encoders)


def ladder(result: CrossvalResult, order: Sequence[str]) -> str:
    """Loss of every model in every fold as a share of the baseline's in the same fold."""
    baseline = result.models[0]
    folds = fold_losses(result)
    base = folds[folds["model"] == baseline].set_index(["repeat", "fold"])["loss"]
    base = base.where(base > 0)  # nothing is a share of no loss
    keys = pd.MultiIndex.from_frame(folds[["repeat", "fold"]])
    folds = folds.assign(loss=folds["loss"].to_numpy() / base.reindex(keys).to_numpy())
    shown = [*(model for model in order if model != baseline), baseline]
    near = folds.loc[folds["model"] != baseline, "loss"].max() > _NEAR
    return picture(
        lambda axes: comparison.plot_losses(
            axes[0, 0],
            folds,
            shown,
            label=f"{metric_of(result.metric).label} as a share of that of {baseline}",
            colours=model_colours(result),
            reference=1.0,
            beyond=not near,
        ),
        width=BESIDE,
        height=0.8 + (0.34 if len(shown) < 13 else 0.25) * len(shown),
    )


def differences(result: CrossvalResult) -> str | None:
    """Declared differences with their intervals and the fold differences behind them."""
    table = family(result)
    table = table[np.isfinite(table["ci_low"])] if len(table) else table
    apart = table[table["model_b"] != result.models[0]] if len(table) else table
    table = apart if len(apart) else table
    if not len(table):
        return None
    pairs = list(zip(table["model_a"], table["model_b"], strict=True))
    wide = fold_losses(result).pivot(index=["repeat", "fold"], columns="model", values="loss")
    colours = model_colours(result)
    loss = loss_label(result.metric, result.info.get("target_units"))
    return picture(
        lambda axes: comparison.plot_differences(
            axes[0, 0],
            table.assign(name=[f"{a} \N{EN DASH} {b}" for a, b in pairs]),
            label=f"difference in {loss}; left: the first is better",
            points=[(wide[a] - wide[b]).to_numpy() for a, b in pairs],
            colours=[colours[a] for a, _ in pairs],
        ),
        height=0.9 + 0.34 * len(table),
    )


def curves(result: CrossvalResult) -> str | None:
    """Training curves: panels of an encoder side by side, one for each term of the objective."""
    found = {
        name: [run for run in facts.get("runs", []) if len(run.get("history") or [])]
        for name, facts in result.info.get("encoders", {}).items()
    }
    found = {name: runs for name, runs in found.items() if runs}
    found = dict(list(found.items())[:MOST_CURVES])
    if not found:
        return None
    colours = model_colours(result)

    def draw(axes: np.ndarray) -> None:
        for panels, (name, runs) in zip(axes, found.items(), strict=True):
            histories = [pd.DataFrame(run["history"]) for run in runs]
            best = [run["best_epoch"] for run in runs if run.get("best_epoch") is not None]
            training.plot_history(panels, histories, name=name, colour=colours[name], best=best)

    return picture(draw, len(found), 3, height=0.5 + 2.1 * len(found))


def latent_health(result: CrossvalResult) -> str | None:
    """KL of every latent unit and reconstruction beside PCA of the same width."""
    encoders = result.info.get("encoders", {})
    runs = [(name, run) for name, facts in encoders.items() for run in facts.get("runs", [])]
    spectra = _by_name((name, run.get("kl_per_unit")) for name, run in runs)
    scored = _by_name((name, (run.get("r2"), run.get("pca_r2"))) for name, run in runs)
    if not spectra and not scored:
        return None
    colours = model_colours(result)

    def draw(axes: np.ndarray) -> None:
        left, right = axes[0]
        left.set_title("what each latent unit carries")
        if not spectra:
            training.say_missing(left)
        for name, values in spectra.items():
            look: Any = {"colour": colours[name], "name": name}
            training.plot_unit_spectrum(
                left, values, threshold=ACTIVE_KL, label="KL (nats)", **look
            )
        if len(spectra) > 1:
            left.legend(loc="best")
        training.plot_reconstruction(right, scored, label="reconstruction R2", colours=colours)
        right.set_title("reconstruction beside PCA")

    return picture(draw, 1, 2, height=max(2.6, 1.0 + 0.3 * len(scored)))


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """Values by name, those that are missing left out."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        numbers = np.atleast_1d(np.asarray([] if value is None else value, dtype=float))
        if numbers.size and np.isfinite(numbers).all():
            found.setdefault(name, []).append(numbers)
    return found


def label_efficiency(result: CrossvalResult, means: pd.DataFrame) -> str:
    """Loss of every model by the number of training samples, as a share of the baseline's."""
    baseline = result.models[0]
    return picture(
        lambda axes: comparison.plot_label_efficiency(
            axes[0, 0],
            means[means["metric"] == result.metric],
            result.models[1:],
            baseline=baseline,
            label=f"{metric_of(result.metric).label} as a share of that of {baseline}",
            colours=model_colours(result),
        ),
        height=3.8,
    )


def _encoders_first(result: CrossvalResult) -> tuple[list[str], list[str]]:
    """Models but the baseline: those that are encoders, and the others."""
    known = result.info.get("encoders", {})
    return [m for m in result.models if m in known], [
        m for m in result.models[1:] if m not in known
    ]


def r2_by_target(result: CrossvalResult) -> str:
    """Distribution of the targets' R2: encoders first, then what they are compared with."""
    encoders, others = _encoders_first(result)
    parsed = [parse_model(name, encoders) for name in others]
    own = [
        model.name
        for model in parsed
        if model.own_gene and model.head == "network" and model.source in encoders
    ]
    linear = [m for m in ("ridge", "ridge_gene", "raw") if m in others]
    shown = [*encoders, *own, *linear][:_MOST_HISTOGRAMS] or others[:_MOST_HISTOGRAMS]
    r2 = {
        model: result.targets[f"r2_{model}"].to_numpy(float)
        for model in shown
        if f"r2_{model}" in result.targets
    }
    colours: Mapping[str, str] = style.colours(list(r2))
    return picture(
        lambda axes: comparison.plot_r2_histogram(axes[0, 0], r2, colours=colours), height=3.2
    )


def calibrated(result: CrossvalResult) -> str:
    """Share of true labels by predicted probability."""
    encoders, others = _encoders_first(result)
    return picture(
        lambda axes: comparison.plot_calibration(
            axes[0, 0],
            result.calibration,
            [*encoders, *others][:_MOST_LINES],
            colours=model_colours(result),
        ),
        width=WIDTH * 0.7,
        height=4.2,
    )
