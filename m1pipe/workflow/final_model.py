"""The final head: fitted into a folder that stands alone, and evaluated on outside samples."""

import dataclasses
import time
from pathlib import Path

import pandas as pd

from m1pipe.artefacts import read_table
from m1pipe.atomic import PathLike, atomic_folder, refuse_folder, write_json, write_text
from m1pipe.config import FitConfig
from m1pipe.console import log
from m1pipe.data.recipe import MISSING_FILE, missing_table
from m1pipe.encoder.bundle import weights_file
from m1pipe.encoder.missing import fill_missing
from m1pipe.encoder.trained import CARD_FILE
from m1pipe.errors import InputError, counted
from m1pipe.evaluation.deploy import ONE_ENCODER, fit_model, open_fit
from m1pipe.evaluation.encoders import parse_encoder
from m1pipe.evaluation.external_validation import (
    LINEAR,
    MODEL,
    RIVAL_FILES,
    Outside,
    evaluate_outside,
    fit_rivals,
    load_rivals,
)
from m1pipe.evaluation.result import to_plain
from m1pipe.heads.fit import head_threads
from m1pipe.io.reader import open_matrix
from m1pipe.predictor import PREDICTOR_FILES, Predictor, load_predictor
from m1pipe.provenance import make_provenance
from m1pipe.reports.evaluation_report import EVALUATION_FILES, evaluation_html
from m1pipe.settings import to_dict
from m1pipe.source_labels import Sources
from m1pipe.workflow.augment import train_generator
from m1pipe.workflow.model_card import describe_head, head_card

SAMPLES = "samples.csv"
A_MODEL = "a model"
MODEL_FILES = (
    *(*PREDICTOR_FILES, *RIVAL_FILES, SAMPLES, "provenance.json", MISSING_FILE, CARD_FILE),
)
PAGE, AN_EVALUATION = "evaluate.html", "an evaluation"
SCORES_FILES = (*EVALUATION_FILES, "provenance.json", PAGE)


def run_fit(
    x: PathLike,
    out: PathLike,
    config: FitConfig,
    *,
    y: PathLike | None = None,
    multilabel: PathLike | None = None,
    encoder: str | None = None,
    sources: Sources | None = None,
    aliases: PathLike | None = None,
    force: bool = False,
) -> tuple[Predictor, str]:
    """Fit a model of a comparison and keep it in a folder that stands alone.

    Parameters
    ----------
    x, y : path
        Genes, and levels to predict; no `y` where `config` names a label.
    out : path
        The model's folder.
    config : FitConfig
    multilabel : path or "obsm:KEY", optional
        Zeros and ones to predict, in place of levels.
    encoder : str, optional
        RUN, NAME=RUN or NAME=fold:CONFIG: the encoder of a model on latents.
    sources : Sources, optional
        Files of other studies whose labels a model NAME_transfer takes as well.
    aliases : path, optional
        Table of other names of genes, by which those of `x` are matched as well.
    force : bool
        Overwrite a model that is there.

    Returns
    -------
    predictor : Predictor
    line : str
        What was made, in a line.

    Raises
    ------
    InputError
        If the folder is taken, or the files do not fit together.
    """
    begun = time.perf_counter()
    out = refuse_folder(out, MODEL_FILES, what=A_MODEL, force=force)
    if config.model is not None and config.model.endswith("_ensemble"):
        raise InputError(
            f"model: expected a model of one encoder; found {config.model}, a mean over several: "
            f"fit {config.model.removesuffix('_ensemble')} to each run, and take the mean of what "
            "they predict"
        )
    named = {} if encoder is None else _named_encoder(encoder)
    with open_matrix(x, aliases=aliases) as matrix:
        problem = open_fit(
            matrix,
            config,
            y=y,
            multilabel=multilabel,
            encoder=named,
            sources=sources,
            generator=train_generator,
        )
        predictor = fit_model(problem, config)
        if problem.n_missing:
            log.info("%s levels are missing: training means in their place", problem.n_missing)
        levels = predictor.align(matrix, min_coverage=config.min_coverage).take(problem.rows)
        genes = fill_missing(levels, predictor.recipe.gene_means)
        rivals = fit_rivals(genes, problem.targets, groups=problem.groups, seed=config.seed)
        missing = missing_table(
            matrix, {"encoder": predictor.recipe}, min_coverage=config.min_coverage
        )
    files = {"x": x, "y": y, "multilabel": multilabel, "aliases": aliases}
    inputs = {role: Path(path) for role, path in files.items() if path is not None}
    inputs = {role: path for role, path in inputs.items() if path.is_file()}
    files_of_others = () if sources is None else sources.files
    inputs |= {f"source {i}": Path(file) for i, file in enumerate(files_of_others, start=1)}
    for item in named.values():
        if Path(item).exists():
            inputs["encoder"] = weights_file(item)
    samples, head = problem.samples, predictor.head
    n_threads = head_threads(head.features.n_inputs, head.module.n_out, config.head)
    provenance = make_provenance(inputs, folder=out, seed=config.seed, threads=n_threads)
    with atomic_folder(out, MODEL_FILES, what=A_MODEL, force=force) as temporary:
        predictor.write_files(temporary)
        rivals.save(temporary)
        pd.DataFrame({"sample": samples}).to_csv(temporary / SAMPLES, index=False)
        write_json(temporary / "provenance.json", provenance)
        write_text(temporary / MISSING_FILE, missing)
        card = head_card(predictor, str(out), provenance, n_samples=len(samples))
        write_text(temporary / CARD_FILE, card)
    return predictor, _fit_line(out, predictor, time.perf_counter() - begun)


def _named_encoder(text: str) -> dict[str, str]:
    """Name and item of NAME=RUN, or of RUN alone."""
    if "=" not in text or Path(text).exists():
        return {ONE_ENCODER: text}
    name, items = parse_encoder(text)
    if len(items) > 1:
        raise InputError(
            f"encoder: expected one run; found {', '.join(items)}: "
            f"give {name}={items[0]} alone, and fit the others by themselves"
        )
    return {name: items[0]}


def _fit_line(out: Path, predictor: Predictor, seconds: float) -> str:
    head = predictor.head
    what = "classes" if predictor.is_classes else "targets"
    n_added = sum((predictor.added or {}).values())
    more = f"; {counted(n_added, 'synthetic sample')} added" if n_added else ""
    error = ""
    if "inner_loss" in head.chosen:
        loss = f"{head.chosen['inner_loss']:.3f}"
        error = f"log loss {loss} on held-out samples and half a missed one; "
        if head.kind == "regression":
            error = f"error {loss} of the variance on held-out samples; "
    return (
        f"{out}: {len(head.names):,} {what} from {predictor.features}{more}, {seconds:.0f} s\n"
        f"  {error}{describe_head(head)}"
    )


def run_evaluate(
    model: PathLike,
    x: PathLike,
    out: PathLike,
    *,
    y: PathLike | None = None,
    label: str | None = None,
    group: str | None = None,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> tuple[Outside, str]:
    """Score a model on an outside labelled set and keep the tables.

    Parameters
    ----------
    model : path
        Folder made by `m1pipe fit`.
    x, y : path
        Genes, and levels; without `y` a column of x is the label.
    out : path
        Folder to make: evaluate.html, and losses.csv, scores.csv, comparisons.csv, summary.json,
        provenance.json.
    label, group, min_coverage
        As for `m1pipe.evaluation.external_validation.evaluate_outside`.
    aliases : path, optional
        Other names of genes.
    force : bool
        Overwrite a folder that holds an evaluation.

    Returns
    -------
    result : Outside
    line : str
        The result in a line.

    Raises
    ------
    InputError
        If the folder is taken, or the files do not fit the model.
    """
    model = Path(model)
    out = refuse_folder(out, SCORES_FILES, what=AN_EVALUATION, force=force)
    seen = model / SAMPLES
    known = None
    if seen.is_file():
        known = set(read_table(seen, "samples of a model", ("sample",), dtype=str)["sample"])
    predictor, rivals = load_predictor(model), load_rivals(model)
    with open_matrix(x, aliases=aliases) as matrix:
        result = evaluate_outside(
            predictor,
            rivals,
            matrix,
            y=y,
            label=label,
            group=group,
            min_coverage=min_coverage,
            trained_on=known,
        )
    named = {"x": x, "y": y, "aliases": aliases, "model": model / "head.safetensors"}
    inputs = {role: path for role, path in named.items() if path is not None}
    with atomic_folder(out, SCORES_FILES, what=AN_EVALUATION, force=force) as part:
        _write(result, part)
        provenance = make_provenance(inputs, folder=out, seed=0, threads=1)
        write_json(part / "provenance.json", provenance)
        config = to_dict(predictor.config)
        page = evaluation_html(result, provenance=provenance, config=config)
        write_text(part / PAGE, page)
    return result, _evaluation_line(out, result)


def _write(result: Outside, folder: Path) -> None:
    result.losses.reset_index().to_csv(folder / "losses.csv", index=False)
    result.scores.to_csv(folder / "scores.csv", index=False, na_rep="NaN")
    result.comparisons.to_csv(folder / "comparisons.csv", index=False, na_rep="NaN")
    scores = result.scores.pivot(index="model", columns="metric", values="value")
    summary = {
        "models": scores.to_dict(orient="index"),
        "comparisons": result.comparisons.to_dict(orient="records"),
        "warnings": [dataclasses.asdict(alarm) for alarm in result.alarms],
        "info": result.info,
    }
    write_json(folder / "summary.json", to_plain(summary))


def _evaluation_line(out: Path, result: Outside) -> str:
    metric = result.info["metric"]
    losses = ", ".join(f"{row} {value:.4g}" for row, value in result.losses.mean().items())
    table = result.comparisons
    unit = "clustered_t" if result.info["n_groups"] else "paired_t"
    row = table[(table["model_b"] == LINEAR) & (table["test"] == unit)].iloc[0]
    return (
        f"{out}: {metric} of {result.info['n']:,} samples: {losses}; {MODEL} - {LINEAR} "
        f"{row['difference']:.3g} (95 % CI {row['ci_low']:.3g} to {row['ci_high']:.3g})"
    )
