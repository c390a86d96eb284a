"""`model.md` of a run folder and of a final head: the data, the training, the limits."""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.config import EncoderConfig
from m1pipe.data.recipe import MIN_COVERAGE
from m1pipe.data.units import BY_TOTAL, MILLION, Units
from m1pipe.encoder.summary import health
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import counted
from m1pipe.evaluation.compared_models import parse_model
from m1pipe.heads.fitted import FittedHead
from m1pipe.predictor import LATENTS, Predictor
from m1pipe.reports.terms import model_label
from m1pipe.settings import to_dict

NOTABLE_DEPTH_R = 0.5
_NAMED = 3
Cells = Iterator[tuple[str, str]]


def model_card(encoder: Encoder, run: str, provenance: Mapping[str, Any]) -> str:
    """Text of `model.md`, in Markdown.

    Parameters
    ----------
    encoder : Encoder
        With its summary.
    run : str
        The folder, as a user would type it.
    provenance : mapping
        Contents of `provenance.json`.

    Returns
    -------
    str
        Sections Data, Training, Latent health, Intended use and limits, How to use it.
    """
    sections = (
        _heading(encoder, run, provenance),
        "## Data\n\n" + as_table(_data(encoder, provenance)),
        "## Training\n\n" + as_table(_training(encoder, provenance)) + "\n" + _settings(encoder),
        "## Latent health\n\n" + as_table(_health(encoder)) + _cautions(encoder),
        "## Intended use and limits\n\n" + _limits(encoder),
        "## How to use it\n\n" + _usage(encoder, run),
    )
    return "\n".join(sections)


def _heading(encoder: Encoder, run: str, provenance: Mapping[str, Any]) -> str:
    beta = encoder.config.model.beta
    kind = "variational autoencoder" if beta > 0 else "plain autoencoder (beta 0)"
    given = ""
    if encoder.condition is not None and not encoder.needs_class:
        given = f", its decoder told the batch ({as_code(encoder.condition.column)})"
    elif encoder.condition is not None:
        kind = f"conditional {kind}"
        given = f", conditioned on {as_code(encoder.condition.column)}"
    begun = str(provenance.get("started", ""))[:10]
    return (
        f"# Model card: {as_text(Path(run).resolve().name)}\n\n"
        f"A {kind} of gene expression{given}: {counted(len(encoder.genes), 'gene')}, "
        f"{encoder.n_latent} latent units. "
        f"Trained by m1pipe {provenance.get('m1pipe', __version__)}"
        + (f" on {begun}.\n" if begun else ".\n")
    )


def _data(encoder: Encoder, provenance: Mapping[str, Any]) -> Cells:
    """Files with their hashes, samples, genes, units."""
    yield from input_rows(provenance)
    found, selection = encoder.summary, encoder.config.selection
    yield (
        "samples",
        f"{found['n_rows']:,} trained on, {found['n_validation']:,} that chose the epoch "
        "(`samples.csv`)",
    )
    if selection.rows is not None:
        yield "chosen samples", as_code(selection.rows)
    named = ", ".join(map(as_text, encoder.genes[:_NAMED]))
    yield "genes", f"{len(encoder.genes):,}: {named}, ... (`model.json`)"
    yield "units", units_text(encoder.units)
    if encoder.thinning is not None:
        known = encoder.thinning
        before, after = known["depth_before"][2], known["depth_after"][2]
        yield (
            "counts",
            f"thinned to depths of `{known['file']}` (median {before:,.0f} to {after:,.0f}; "
            f"{known['n_left']:,} left as they were, {known['n_empty']:,} kept out)",
        )
    if found["n_missing"]:
        yield "missing levels", f"{found['n_missing']:,}"
    if encoder.condition is not None:
        pairs = zip(encoder.condition.classes, encoder.condition.counts, strict=True)
        name = "classes" if encoder.needs_class else "batches"
        yield name, ", ".join(f"{as_text(name)} ({count:,})" for name, count in pairs)


def input_rows(provenance: Mapping[str, Any]) -> Cells:
    """Names and hashes of the files that a run read."""
    for role, known in (provenance.get("inputs") or {}).items():
        yield role, f"{as_code(Path(known['path']).name)}, SHA-256 `{known['sha256']}`"


def units_text(units: Units) -> str:
    """Name of the units, with the total where it is not the obvious one."""
    if units.target_sum is None or units.target_sum == MILLION:
        return units.name
    return f"{units.name}, of samples scaled to a total of {units.target_sum:,.0f}"


def _training(encoder: Encoder, provenance: Mapping[str, Any]) -> Cells:
    """How long, how precisely, from which seed."""
    found = encoder.summary
    early = ", stopped early" if found["stopped_early"] else ""
    yield "epochs", f"{found['epochs']} (weights of epoch {found['best_epoch']}{early})"
    yield "validation loss", f"{number(found['val_loss'])} nats a sample"
    yield "parameters", f"{found['n_parameters']:,} trained, {found['n_held']:,} held at the PCA"
    yield "precision", f"{found['precision']} on {found['device']}"
    if "seconds" in found:
        yield "time", f"{found['seconds']:,.0f} s"
    yield "seed", str(encoder.config.training.seed)
    if provenance.get("git_commit"):
        yield "commit", f"`{provenance['git_commit']}`"


def _settings(encoder: Encoder) -> str:
    """Settings that are not the defaults, as a table; seed and samples are listed elsewhere."""
    default, here = to_dict(EncoderConfig()), to_dict(encoder.config)
    rows = [
        (f"`{name}`", "by the data" if known is None else _plain(known), _plain(value))
        for part in ("model", "training")
        for name, value in here[part].items()
        if name != "seed" and value != (known := default[part][name])
    ]
    if not rows:
        return "All settings are the defaults.\n"
    lines = ["| setting | default | here |", "|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _health(encoder: Encoder) -> Cells:
    """Reconstruction beside PCA, and what the latent units carry."""
    found = encoder.summary
    rows = "held-out" if found["r2_rows"] == "validation" else "training"
    yield (
        f"R2 of reconstruction, {rows} samples",
        f"{number(found['r2'])} (PCA of the same width {number(found['pca_r2'])})",
    )
    yield "active units", f"{found['active_units']} of {encoder.n_latent}"
    kl = [value for value in found["kl_per_unit"] or [] if value is not None]
    if kl:
        yield "KL", f"{sum(kl):.1f} nats a sample; {min(kl):.2f} to {max(kl):.2f} a unit"
    yield "latent scale", _latent_scale(encoder)
    yield "hidden units that never change", f"{found['dead_share']:.1%}"
    yield from _batches(found.get("batches"))
    if found["depth_r"]:
        worst = _depth_r(found)
        yield f"correlation with {found['depth']}", f"at most {worst:.2f} in size, of any unit"


def _batches(found: Mapping[str, Any] | None) -> Cells:
    """What is left of the batches in the latents, beside what is left of other columns."""
    if not found:
        return
    for column, values in found["r2"].items():
        what = "the batch" if column == found["column"] else as_code(column)
        genes, latents = map(number, values)
        yield f"adjusted R2 on {what}", f"{latents} of the latents ({genes} of the genes)"
    yield (
        f"neighbours of other batches ({found['n_neighbours']} nearest)",
        f"{found['mixing']:.2f} of what chance would give",
    )


def _latent_scale(encoder: Encoder) -> str:
    """What latents are multiplied by outside of the network."""
    if encoder.config.model.latent_scale == "unit":
        return "the network's own"
    low, high = encoder.latent_scale.min(), encoder.latent_scale.max()
    return f"{low:.3g} to {high:.3g} times the network's own, by loadings on standardised genes"


def _cautions(encoder: Encoder) -> str:
    """What in these numbers speaks against the model."""
    found, said = encoder.summary, []
    if not found["active_units"]:
        said.append("No unit carries anything: the KL outweighs the likelihood. Do not use it.")
    r2, pca_r2 = found["r2"], found["pca_r2"]
    if r2 is not None and pca_r2 is not None and r2 < pca_r2:
        said.append("PCA of the same width reconstructs better.")
    if found["depth_r"] and _depth_r(found) > NOTABLE_DEPTH_R:
        said.append(f"A unit follows {found['depth']}: differences in depth look like biology.")
    return "".join(f"\n**Caution.** {text}\n" for text in said)


def _depth_r(found: Mapping[str, Any]) -> float:
    return max(abs(float(r)) for r in found["depth_r"])


def _limits(encoder: Encoder) -> str:
    """What goes in, and what the model is not for."""
    units, lines = encoder.units, []
    wanted = f"Samples in {units_text(units)}"
    if units.name in BY_TOTAL:
        wanted += ", or raw counts, which are converted"
    lines.append(
        f"{wanted}; genes by name, at least {MIN_COVERAGE:.0%} of the model's (others are "
        "imputed with their training means)."
    )
    if encoder.condition is not None and encoder.needs_class:
        lines.append(
            f"A column {as_code(encoder.condition.column)} with one of the classes above for each "
            "sample."
        )
    lines.append(
        "Made for: latent features for prediction from few labelled samples, maps of samples, "
        "denoised levels."
    )
    lines.append(
        "Not for other species or technologies, nor for tissues that the data lack: `encode` says "
        "how far new samples lie from the training data; " + _batch_effects(encoder)
    )
    lines.append("Not for diagnosis or any decision about a person.")
    if encoder.config.model.beta > 0:
        lines.append("Synthetic samples are not private until `m1pipe quality` has been read.")
    else:
        lines.append("Its latents have no prior: a sample has no likelihood (`score`).")
    lines.append(
        "Whether it beats the raw genes for a label is for `m1pipe crossval` to say, on samples "
        "that it was not trained on."
    )
    return _bullets(lines)


def _batch_effects(encoder: Encoder) -> str:
    if encoder.centring is not None:
        column = as_code(encoder.centring.column)
        return f"genes are centred and scaled within {column}, of new samples too, by their own."
    if encoder.config.model.batch:
        return "effects of the batches above are taken off, those of a new batch are not."
    return "batch effects are not removed."


def _usage(encoder: Encoder, run: str) -> str:
    quoted = shlex.quote(run)
    code = f"from m1pipe import load_encoder; Z = load_encoder({json.dumps(run)})"
    code += '.transform("new.h5ad")'
    lines = (
        f"m1pipe encode {quoted} new.h5ad --out z.h5ad",
        f"m1pipe fit --x x.h5ad --label LABEL --encoder {quoted} --out head",
        f"python -c {shlex.quote(code)}",
    )
    return "".join(f"    {line}\n" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def as_code(text: str) -> str:
    """A name as code that ends where it ends, in a cell or out of it."""
    plain = "".join("?" if unicodedata.category(c).startswith("C") else c for c in str(text))
    return "`" + plain.replace("`", "'").replace("|", "\\|") + "`"


def as_text(text: str) -> str:
    """A name as text without the marks of Markdown."""
    plain = "".join("?" if unicodedata.category(c).startswith("C") else c for c in str(text))
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", plain)


def as_table(rows: Cells) -> str:
    """Lines of two cells, in Markdown."""
    cells = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return "| | |\n|---|---|\n" + cells


def _plain(value: Any) -> str:
    """A setting as it would be typed."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Three decimals."""
    return "undefined" if value is None else f"{value:.3f}"


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
    begun = str(provenance.get("started", ""))[:10]
    quoted = shlex.quote(folder)
    sections = (
        f"# Model card: {as_text(Path(folder).resolve().name)}\n\n"
        f"A head that predicts {len(predictor.head.names):,} {what} from {predictor.features}. "
        f"Fitted by m1pipe {provenance.get('m1pipe', __version__)}"
        + (f" on {begun}.\n" if begun else ".\n"),
        "## Data\n\n" + as_table(_head_data(predictor, provenance, n_samples)),
        "## Training\n\n" + as_table(_head_training(predictor, provenance)),
        "## Intended use and limits\n\n" + _bullets(_head_limits(predictor)),
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
        return (
            f"a network of {counted(head.chosen['epochs'], 'epoch')}"
            if head.chosen
            else "a network"
        )
    if head.is_linear:
        return f"{name}; no network was kept"
    n, epochs = head.chosen["n_seeds"], head.chosen["epochs"]
    networks = "a network" if n == 1 else f"the mean of {n} networks"
    beside = f"{name} and " if head.chosen.get("linear", True) else ""
    return f"{beside}{networks} of {counted(epochs, 'epoch')}"


def _head_data(predictor: Predictor, provenance: Mapping[str, Any], n_samples: int) -> Cells:
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


def _head_training(predictor: Predictor, provenance: Mapping[str, Any]) -> Cells:
    """What was chosen, how well it does on samples held out of it, from which seed."""
    head, config = predictor.head, predictor.config
    own = "" if predictor.own_genes is None else ", with each target's own gene"
    if config.model is not None:
        yield "model", f"{as_code(config.model)}: {_meaning(predictor)}"
    yield "head", describe_head(head) + own
    if "alpha" in head.chosen and head.chosen.get("linear", True):
        yield "penalty of the linear part", number(head.chosen["alpha"])
    unit = "nats, with half a missed sample"
    if head.kind == "regression":
        unit = "share of the variance"
    for name, label in (("inner_loss", "loss"), ("inner_loss_linear", "loss without a network")):
        if name in head.chosen:
            yield f"{label} on held-out samples", f"{number(head.chosen[name])} ({unit})"
    if predictor.errors is not None:
        yield "prediction intervals", f"from {config.conformal:.0%} of the samples, set aside"
    yield "seed", str(config.seed)
    if provenance.get("git_commit"):
        yield "commit", f"`{provenance['git_commit']}`"


def _meaning(predictor: Predictor) -> str:
    """What the model's name means."""
    model, encoder = str(predictor.config.model), predictor.encoder
    if encoder is None or LATENTS not in predictor.inputs:
        return model_label(model, {})
    known: dict[str, object] = {"n_latent": encoder.n_latent, "beta": encoder.config.model.beta}
    return model_label(model, {parse_model(model).source: known})


def _head_limits(predictor: Predictor) -> Iterator[str]:
    """What goes in, and what the model is not for."""
    share = f"{predictor.config.min_coverage:.0%}"
    yield (
        f"Samples in {units_text(predictor.recipe.units)}; genes by name, at least {share} of the "
        "model's (others are imputed with their training means)."
    )
    yield (
        "The loss on held-out samples chose the settings, and is no test: `m1pipe crossval` says "
        "how good such a model is beside simpler ones, `m1pipe evaluate` how good this one is on "
        "outside samples."
    )
    if predictor.is_classes:
        yield "It knows no other classes: a sample of none of them is assigned to one anyway."
    if predictor.errors is not None:
        yield "Its intervals hold for samples like those it was fitted to, not for another cohort."
    yield "Not for other species or technologies; batch effects are not removed."
    yield "Not for diagnosis or any decision about a person."


def _labels(predictor: Predictor) -> str:
    """How an outside set names what is predicted."""
    if predictor.config.label is not None:
        return f"--label {shlex.quote(predictor.config.label)}"
    return "--y y.h5ad"
