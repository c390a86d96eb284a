"""`model.md` of a final head: what it predicts, from what, how well it fits, and its limits."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.encoder.summary import health
from m1pipe.heads.fitted import FittedHead
from m1pipe.predictor import Predictor
from m1pipe.runs.card import as_table, as_text, input_rows, number, units_text

_NAMED = 3


def head_card(
    predictor: Predictor, folder: str, provenance: Mapping[str, Any], *, n_samples: int
) -> str:
    """Text of `model.md`, in Markdown.

    Parameters
    ----------
    predictor : Predictor
    folder : str
        As a user would type it.
    provenance : mapping
        Contents of `provenance.json`.
    n_samples : int
        Labelled samples that it was fitted to.

    Returns
    -------
    str
        Sections Data, Training, Intended use and limits, How to use it.
    """
    what = "classes" if predictor.is_classes else "targets"
    features = "the genes" if predictor.encoder is None else f"{predictor.encoder.n_latent} latents"
    begun = str(provenance.get("started", ""))[:10]
    quoted = shlex.quote(folder)
    sections = (
        f"# Model card: {as_text(Path(folder).resolve().name)}\n\n"
        f"A head that predicts {len(predictor.head.names):,} {what} from {features}. "
        f"Fitted by m1pipe {provenance.get('m1pipe', __version__)}"
        + (f" on {begun}.\n" if begun else ".\n"),
        "## Data\n\n" + as_table(_data(predictor, provenance, n_samples)),
        "## Training\n\n" + as_table(_training(predictor, provenance)),
        "## Intended use and limits\n\n" + "".join(f"- {line}\n" for line in _limits(predictor)),
        f"## How to use it\n\n    m1pipe predict {quoted} new.h5ad --out predictions.h5ad\n"
        f"    m1pipe evaluate {quoted} --x x.h5ad {_labels(predictor)} --out outside\n",
    )
    return "\n".join(sections)


def describe_head(head: FittedHead) -> str:
    """What a head is: the linear map, the network, or both.

    Parameters
    ----------
    head : FittedHead
    """
    name = "ridge" if head.kind == "regression" else "logistic regression"
    if head.module.linear is None:
        return f"a network of {head.chosen['epochs']} epochs" if head.chosen else "a network"
    if head.is_linear:
        return f"{name}; no network was kept"
    n, epochs = head.chosen["n_seeds"], head.chosen["epochs"]
    networks = "a network" if n == 1 else f"the mean of {n} networks"
    return f"{name} and {networks} of {epochs} epoch{'s' * (epochs > 1)}"


def _data(
    predictor: Predictor, provenance: Mapping[str, Any], n_samples: int
) -> Iterator[tuple[str, str]]:
    """Files with their hashes, samples, what goes in and what comes out."""
    yield from input_rows(provenance)
    yield "samples", f"{n_samples:,} (`samples.csv`)"
    if predictor.added:
        named = ", ".join(f"{as_text(name)} ({n:,})" for name, n in predictor.added.items())
        yield "synthetic samples added", named
    recipe, head = predictor.recipe, predictor.head
    first = ", ".join(map(as_text, recipe.genes[:_NAMED]))
    yield (
        "genes",
        f"{len(recipe.genes):,}: {first}, ... (`model.json`)",
    )
    yield "units of the genes", units_text(recipe.units)
    if predictor.encoder is not None:
        n_latent, found = predictor.encoder.n_latent, health(predictor.encoder.summary)
        yield "features", f"{n_latent} latents of the encoder, a copy of which is here; its {found}"
    more = ", ..." * (len(head.names) > _NAMED)
    yield "predicted", ", ".join(map(as_text, head.names[:_NAMED])) + more
    if not predictor.is_classes and head.kind == "regression":
        yield "units of the predictions", units_text(head.units)


def _training(predictor: Predictor, provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was chosen, how well it does on samples held out of it, from which seed."""
    head, config = predictor.head, predictor.config
    own = "" if predictor.own_genes is None else ", with each target's own gene"
    yield "head", describe_head(head) + own
    if "alpha" in head.chosen:
        yield "penalty of the linear part", number(head.chosen["alpha"])
    unit = "share of the variance" if head.kind == "regression" else "nats"
    for name, label in (("inner_loss", "loss"), ("inner_loss_linear", "loss without a network")):
        if name in head.chosen:
            yield f"{label} on held-out samples", f"{number(head.chosen[name])} ({unit})"
    if predictor.errors is not None:
        yield "prediction intervals", f"from {config.conformal:.0%} of the samples, set aside"
    yield "seed", str(config.seed)
    if provenance.get("git_commit"):
        yield "commit", f"`{provenance['git_commit']}`"


def _limits(predictor: Predictor) -> Iterator[str]:
    """What goes in, and what the model is not for."""
    share = f"{predictor.config.min_coverage:.0%}"
    yield (
        f"Samples in {units_text(predictor.recipe.units)}; genes by name, at least {share} of the "
        "model's (the others stand at their training mean)."
    )
    yield (
        "The loss on held-out samples chose the settings, and is no test: `m1pipe crossval` says "
        "how good such a model is beside simpler ones, `m1pipe evaluate` how good this one is on "
        "outside samples."
    )
    if predictor.is_classes:
        yield "It knows no other classes: a sample of none of them is given one all the same."
    if predictor.errors is not None:
        yield "Its intervals hold for samples like those it was fitted to, not for another cohort."
    yield "Not for other species or technologies; batch effects are not removed."
    yield "Not for diagnosis or any decision about a person."


def _labels(predictor: Predictor) -> str:
    """How an outside set names what is predicted."""
    if predictor.config.label is not None:
        return f"--label {shlex.quote(predictor.config.label)}"
    return "--y y.h5ad"
