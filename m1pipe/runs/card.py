"""`model.md` of a run folder: what was trained on what, how it went, and what it is good for."""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.config import EncoderConfig
from m1pipe.data.units import BY_TOTAL, MILLION, Units
from m1pipe.encoder.trained import Encoder
from m1pipe.recipe import MIN_COVERAGE
from m1pipe.settings import to_dict

CARD_FILE = "model.md"
NOTABLE_DEPTH_R = 0.5
_NAMED = 3


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
        _head(encoder, run, provenance),
        "## Data\n\n" + as_table(_data(encoder, provenance)),
        "## Training\n\n" + as_table(_training(encoder, provenance)) + "\n" + _settings(encoder),
        "## Latent health\n\n" + as_table(_health(encoder)) + _cautions(encoder),
        "## Intended use and limits\n\n" + _limits(encoder),
        "## How to use it\n\n" + _usage(encoder, run),
    )
    return "\n".join(sections)


def _head(encoder: Encoder, run: str, provenance: Mapping[str, Any]) -> str:
    beta = encoder.config.model.beta
    kind = "variational autoencoder" if beta > 0 else "plain autoencoder (beta 0)"
    if encoder.condition is not None:
        kind = f"conditional {kind}, told {as_code(encoder.condition.column)}"
    begun = str(provenance.get("started", ""))[:10]
    return (
        f"# Model card: {as_text(Path(run).resolve().name)}\n\n"
        f"A {kind} of gene expression: {len(encoder.genes):,} genes, {encoder.n_latent} latent "
        f"units. Trained by m1pipe {provenance.get('m1pipe', __version__)}"
        + (f" on {begun}.\n" if begun else ".\n")
    )


def _data(encoder: Encoder, provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Files with their hashes, samples, genes, units."""
    yield from input_rows(provenance)
    found, selection = encoder.summary, encoder.config.selection
    yield (
        "samples",
        f"{found['n_rows']:,} trained on, {found['n_validation']:,} that chose the epoch "
        "(`samples.csv`)",
    )
    if selection.rows is not None:
        yield "rows", as_code(selection.rows)
    named = ", ".join(map(as_text, encoder.genes[:_NAMED]))
    yield "genes", f"{len(encoder.genes):,}: {named}, ... (`model.json`)"
    yield "units", units_text(encoder.units)
    if encoder.thinning is not None:
        known = encoder.thinning
        before, after = known["depth_before"][2], known["depth_after"][2]
        yield (
            "counts",
            f"thinned to depths of `{known['file']}` (median {before:,.0f} to {after:,.0f}; "
            f"{known['n_left']:,} samples left as they were, {known['n_empty']:,} kept out)",
        )
    if found["n_missing"]:
        yield "missing levels", f"{found['n_missing']:,}"
    if encoder.condition is not None:
        pairs = zip(encoder.condition.classes, encoder.condition.counts, strict=True)
        yield "classes", ", ".join(f"{as_text(name)} ({count:,})" for name, count in pairs)


def input_rows(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and hashes of the files that a run read."""
    for role, known in (provenance.get("inputs") or {}).items():
        yield role, f"{as_code(Path(known['path']).name)}, SHA-256 `{known['sha256']}`"


def units_text(units: Units) -> str:
    """Name of the units, with the total where it is not the obvious one."""
    if units.target_sum is None or units.target_sum == MILLION:
        return units.name
    return f"{units.name}, of samples scaled to a total of {units.target_sum:,.0f}"


def _training(encoder: Encoder, provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
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
    """Settings that are not the defaults, as a table; seed and rows stand elsewhere."""
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


def _health(encoder: Encoder) -> Iterator[tuple[str, str]]:
    """Reconstruction beside PCA, and what the latent units carry."""
    found = encoder.summary
    rows = "held-out" if found["r2_rows"] == "validation" else "training"
    yield (
        f"R2 on {rows} rows",
        f"{number(found['r2'])} (PCA of the same width {number(found['pca_r2'])})",
    )
    yield "active units", f"{found['active_units']} of {encoder.n_latent}"
    kl = [value for value in found["kl_per_unit"] or [] if value is not None]
    if kl:
        yield "KL", f"{sum(kl):.1f} nats a sample; {min(kl):.2f} to {max(kl):.2f} a unit"
    yield "latent scale", _latent_scale(encoder)
    yield "hidden units that never change", f"{found['dead_share']:.1%}"
    if found["depth_r"]:
        worst = _depth_r(found)
        yield f"correlation with {found['depth']}", f"at most {worst:.2f} in size, of any unit"


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
    result: float = max(abs(r) for r in found["depth_r"])
    return result


def _limits(encoder: Encoder) -> str:
    """What goes in, and what the model is not for."""
    units, lines = encoder.units, []
    wanted = f"Samples in {units_text(units)}"
    if units.name in BY_TOTAL:
        wanted += ", or raw counts, which are brought to them"
    lines.append(
        f"{wanted}; genes by name, at least {MIN_COVERAGE:.0%} of the model's (the others stand "
        "at their training mean)."
    )
    if encoder.condition is not None:
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
        "how far new samples lie from the training data; batch effects are not removed."
    )
    lines.append("Not for diagnosis or any decision about a person.")
    if encoder.config.model.beta > 0:
        lines.append("Synthetic samples are not private until `m1pipe quality` has been read.")
    else:
        lines.append("Its latents have no law: no likelihood of a sample (`score`).")
    lines.append(
        "Whether it beats the raw genes for a label is for `m1pipe crossval` to say, on samples "
        "that it was not trained on."
    )
    return "".join(f"- {line}\n" for line in lines)


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


def as_code(text: str) -> str:
    """A name as code that ends where it ends, in a cell or out of it."""
    plain = "".join("?" if unicodedata.category(c).startswith("C") else c for c in str(text))
    return "`" + plain.replace("`", "'").replace("|", "\\|") + "`"


def as_text(text: str) -> str:
    """A name as text without the marks of Markdown."""
    plain = "".join("?" if unicodedata.category(c).startswith("C") else c for c in str(text))
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", plain)


def as_table(rows: Iterator[tuple[str, str]]) -> str:
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
