"""The tables of plain facts: the data, what each row saw, the encoders, where it all came from."""

from collections.abc import Mapping, Sequence
from typing import Any

from m1pipe.evaluation.result import CrossvalResult
from m1pipe.reports.layout import Table
from m1pipe.reports.numbers import ABSENT, count, listing, number, size
from m1pipe.reports.terms import model_label

ACTIVE_KL = 0.05
ACTIVE_VARIANCE = 0.01
_MOST_NAMED = 12
_MOST_RUNS = 12
_UNKNOWN = "not recorded"
_DASH = "\N{EN DASH}"


def data(result: CrossvalResult, inputs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Samples, genes, targets, units, strata, donors, what was left out, the files.

    Parameters
    ----------
    result : CrossvalResult
        The result.
    inputs : mapping
        Role to file, as in `provenance.json`.
    """
    info = result.info
    lines = [
        ("samples", _samples_text(result)),
        ("left out", _left_out(info)),
        ("inputs (X)", _with_units(count(info.get("n_features"), "gene"), info.get("units"))),
        ("missing levels", _missing_text(result)),
        ("targets (Y)", _targets_text(info)),
        ("classes", _counts_text(info.get("classes"))),
        ("added to a training fold", _added_text(info.get("added") or [])),
        ("strata", _strata_text(info)),
        ("donors", _donors_text(info)),
        ("folds", _folds_text(result)),
    ]
    lines += [(f"file: {role}", shown_path(file)) for role, file in inputs.items()]
    rows = [[name, text] for name, text in lines if text]
    return Table(caption="The data and the folds.", head=[], rows=rows, n_text=2)


def _samples_text(result: CrossvalResult) -> str:
    n = count(len(result.samples), "sample")
    n_x, n_y = result.info.get("n_x"), result.info.get("n_y")
    if n_x and n_y:
        return f"{n} paired by sample id ({n_x:,} in X, {n_y:,} in Y)"
    return n + (f" with a label, of {n_x:,} in X" if n_x else "")


def _missing_text(result: CrossvalResult) -> str:
    """How many levels of X were imputed, as `fitted on` says of each row; empty for none."""
    n, n_levels = result.info.get("n_missing"), result.info.get("n_features", 0)
    return f"{n:,} of {n_levels * len(result.samples):,} levels of X" if n else ""


def _with_units(text: str, units: Any) -> str:
    return f"{text}, {units}" if units else text


def _targets_text(info: Mapping[str, Any]) -> str:
    n = info.get("n_targets")
    if info.get("kind") == "regression":
        return _with_units(count(n, "target"), info.get("target_units"))
    noun = "label" if info.get("kind") == "multilabel" else "class"
    text = count(n, noun, None if noun == "label" else "classes")
    text += f" of {info['label']}" if info.get("label") else ""
    names = info.get("target_names") or []
    if info.get("kind") == "binary" and len(names) == 2:
        text += f"; ROC AUC and average precision are those of {names[1]}"
    return text


def _left_out(info: Mapping[str, Any]) -> str:
    """How many samples were left out and why, with an example."""
    text, example = _counts_text(info.get("dropped")), info.get("left_out_example")
    return f"{text} (such as {example})" if text and example is not None else text


def _counts_text(counts: Mapping[str, int] | None) -> str:
    """`lung (30), liver (12)`, the largest first; zero counts are left out."""
    present = {name: n for name, n in (counts or {}).items() if n}
    ranked = sorted(present.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} ({n:,})" for name, n in ranked[:_MOST_NAMED]]
    if len(ranked) > _MOST_NAMED:
        shown.append(f"and {len(ranked) - _MOST_NAMED} more")
    return ", ".join(shown)


def _added_text(folds: Sequence[Mapping[str, Any]]) -> str:
    """Synthetic samples of every class, on average over the training folds."""
    if not folds:
        return ""
    means = {
        name: round(sum(fold["classes"][name] for fold in folds) / len(folds))
        for name in folds[0]["classes"]
    }
    return _counts_text(means) or "nothing: the classes are of one size"


def _strata_text(info: Mapping[str, Any]) -> str:
    column = info.get("stratify")
    if not column:
        return "none: folds were not stratified"
    counts = _counts_text(info.get("strata"))
    return f"by {column}" + (f": {counts}" if counts else "")


def _donors_text(info: Mapping[str, Any]) -> str:
    if not info.get("n_groups"):
        return "not known: samples are taken as independent"
    column = f" (by {info['group']})" if info.get("group") else ""
    kept = "may stand on both sides" if info.get("leave_out") else "no donor on both sides"
    return f"{count(info['n_groups'], 'donor')}{column}; {kept} of a split"


def _folds_text(result: CrossvalResult) -> str:
    sizes = [(row == k).sum() for row in result.folds for k in range(result.n_folds)]
    times = f", repeated {result.n_repeats} times" if result.n_repeats > 1 else ""
    if result.info.get("leave_out"):
        times = f", each a value of {result.info['leave_out']} left out"
    each = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return f"{result.n_folds}{times}; {each} test samples each"


def seen(result: CrossvalResult) -> Table:
    """What each row is, and what was fitted on which samples."""
    encoders, rows = result.info.get("encoders", {}), result.info.get("rows", {})
    lines = [
        [model, model_label(model, encoders) or _DASH, _seen_text(rows.get(model))]
        for model in result.models
    ]
    return Table(
        caption="What each model is, and which samples its parts were fitted on.",
        head=["model", "what it is", "fitted on"],
        rows=lines,
        n_text=3,
    )


def _seen_text(parts: Any) -> str:
    if isinstance(parts, Mapping):
        return "; ".join(f"{name}: {text}" for name, text in parts.items() if text) or _UNKNOWN
    return str(parts) if parts else _UNKNOWN


def runs_of(result: CrossvalResult) -> list[tuple[str, Mapping[str, Any]]]:
    """Every trained encoder with the name of its row."""
    encoders = result.info.get("encoders", {})
    return [(name, run) for name, facts in encoders.items() for run in facts.get("runs", [])]


def encoders(result: CrossvalResult) -> Table | None:
    """Health of every trained encoder: active units, reconstruction beside PCA's, library size."""
    runs = runs_of(result)
    if not runs:
        return None
    depths = sorted({str(run["depth"]) for _, run in runs if run.get("depth")})
    files = sorted({str(run["data"]) for _, run in runs if run.get("data")})
    trained_on = f"Trained on {listing(files)}. " if files else ""
    return Table(
        caption="Health of every trained encoder.",
        groups=[("", 4), ("active units", 2), ("reconstruction R2", 2), ("", 1)],
        head=[
            "model",
            "run",
            "samples",
            "epoch",
            "by KL",
            "by variance",
            "own",
            "PCA",
            "largest |r|",
        ],
        rows=[_encoder_row(result, name, run) for name, run in runs],
        n_text=2,
        folded=len(runs) > _MOST_RUNS,
        note=f"{trained_on}Samples: those trained on. Epoch: the one whose weights were kept. "
        f"Active by KL: mean KL divergence from the prior above {ACTIVE_KL} nats (an autoencoder "
        f"has none); by variance: variance of the posterior mean above {ACTIVE_VARIANCE}; of all "
        "latent units. "
        "Reconstruction R2: 1 - SSE / SST on standardised genes, on validation rows where there "
        "are any; PCA: of as many principal components of the same training rows. Largest |r|: "
        f"of a latent unit with the library size ({listing(depths, 'or') or 'not recorded'}).",
    )


def chosen(result: CrossvalResult) -> Table | None:
    """What inner folds chose for every model, over the test folds."""
    lines = result.info.get("chosen") or []
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_model.setdefault(str(line["row"]), []).append(line)
    if not by_model:
        return None
    rows = []
    for model in (m for m in result.models if m in by_model):
        own = by_model[model]
        heads = [line.get("head") or {} for line in own]
        settings = [
            f"{name} {found}"
            for name, found in (
                ("latent", _spread([line.get("n_latent") for line in own])),
                ("beta", _spread([line.get("beta") for line in own])),
                ("share of latents", _spread([head.get("share") for head in heads])),
                ("power", _spread([head.get("power") for head in heads])),
                ("own-gene penalty", _spread([head.get("own_penalty") for head in heads])),
                ("hidden", _spread([_joined(head.get("hidden")) for head in heads])),
                ("learning rate", _spread([head.get("lr") for head in heads])),
            )
            if found
        ]
        kept = [int(head.get("epochs") or 0) for head in heads]
        rows.append(
            [
                model,
                _spread([head.get("alpha") for head in heads]) or _DASH,
                f"{sum(epochs > 0 for epochs in kept)} of {len(kept)}",
                _spread([epochs for epochs in kept if epochs]) or _DASH,
                "; ".join(settings) or _DASH,
            ]
        )
    return Table(
        caption="What inner folds of the training rows chose for every model.",
        head=["model", "penalty", "network kept in", "its epochs", "other settings"],
        rows=rows,
        note="From the lowest to the highest over test folds; first seed. Share of "
        "latents: how much they count beside the genes (0: the genes alone, 1: the latents "
        "alone). Test rows had no part in it.",
        folded=len(rows) > _MOST_RUNS,
    )


def _joined(widths: Sequence[int] | None) -> str | None:
    return None if not widths else "-".join(map(str, widths))


def _spread(values: Sequence[Any]) -> str:
    """Lowest to highest of what is known; nothing where nothing is."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    ends = (min(known), max(known)) if not isinstance(known[0], str) else (known[0], known[-1])
    low, high = (v if isinstance(v, str) else f"{float(v):.3g}" for v in ends)
    return low if low == high else f"{low} to {high}"


def _encoder_row(result: CrossvalResult, name: str, run: Mapping[str, Any]) -> list[str]:
    facts = result.info["encoders"][name]
    no_kl = facts.get("beta") == 0
    width = run.get("n_latent") or facts.get("n_latent")
    of_all = f" / {width}" if width else ""
    depth_r = run.get("library_size_r")
    return [
        name,
        str(run.get("path") or f"seed {run.get('seed', ABSENT)}"),
        count(run.get("n_train")),
        str(ABSENT if run.get("best_epoch") is None else run["best_epoch"]),
        _DASH if no_kl else f"{run.get('active_kl', ABSENT)}{of_all}",
        f"{run.get('active_mu', ABSENT)}{of_all}",
        number(run.get("r2"), 3),
        number(run.get("pca_r2"), 3),
        _DASH if depth_r is None else number(depth_r, 2),
    ]


def provenance(facts: Mapping[str, Any]) -> Table:
    """Where the result came from: version, commit, command, libraries, input files.

    Parameters
    ----------
    facts : mapping
        As in `provenance.json`; whatever it holds is shown.
    """
    rows: list[list[str]] = []
    for name, value in facts.items():
        if name == "inputs" and isinstance(value, Mapping):
            rows += [[f"input {role}", _input_text(file)] for role, file in value.items()]
        elif name == "libraries" and isinstance(value, Mapping):
            rows.append([name, ", ".join(f"{lib} {v}" for lib, v in value.items())])
        elif value is not None:
            rows.append([name.replace("_", " "), _plain_text(value)])
    return Table(
        caption="Where this result came from.",
        head=[],
        rows=rows or [["provenance", ABSENT]],
        n_text=2,
    )


def _input_text(file: Mapping[str, Any]) -> str:
    return f"{shown_path(file)}, {size(file.get('size'))}, SHA-256 {file.get('sha256')}"


def shown_path(file: Mapping[str, Any]) -> str:
    """An input's path from the result's folder, where it is of the same tree; else absolute."""
    return str(file.get("relative") or file.get("path", ""))


def _plain_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(v) for v in value)
    return str(value)
