"""What `m1pipe evaluate` does: a folder with the scores of a fitted model on outside samples."""

import dataclasses
import os
from pathlib import Path

from m1pipe.artefacts import read_table
from m1pipe.atomic import atomic_folder, refuse_folder, write_json, write_text
from m1pipe.data.matrix import open_matrix
from m1pipe.evaluation.outside import LINEAR, MODEL, Outside, evaluate_outside, load_rivals
from m1pipe.evaluation.result import to_plain
from m1pipe.predictor import load_predictor
from m1pipe.reports.evaluate import EVALUATION_FILES, evaluation_html
from m1pipe.runs.fit import SAMPLES
from m1pipe.runs.provenance import make_provenance
from m1pipe.settings import to_dict

PAGE, WHAT = "evaluate.html", "an evaluation"
OWN_FILES = (*EVALUATION_FILES, "provenance.json", PAGE)
PathLike = str | os.PathLike[str]


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
        As for `m1pipe.evaluation.outside.evaluate_outside`.
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
    out = refuse_folder(out, OWN_FILES, what=WHAT, force=force)
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
    with atomic_folder(out, OWN_FILES, what=WHAT, force=force) as part:
        _write(result, part)
        provenance = make_provenance(inputs, folder=out, seed=0, threads=1)
        write_json(part / "provenance.json", provenance)
        config = to_dict(predictor.config)
        page = evaluation_html(result, provenance=provenance, config=config)
        write_text(part / PAGE, page)
    return result, _line(out, result)


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


def _line(out: Path, result: Outside) -> str:
    metric = result.info["metric"]
    losses = ", ".join(f"{row} {value:.4g}" for row, value in result.losses.mean().items())
    table = result.comparisons
    unit = "clustered_t" if result.info["n_groups"] else "paired_t"
    row = table[(table["model_b"] == LINEAR) & (table["test"] == unit)].iloc[0]
    return (
        f"{out}: {metric} of {result.info['n']:,} samples: {losses}; {MODEL} - {LINEAR} "
        f"{row['difference']:.3g} (95 % CI {row['ci_low']:.3g} to {row['ci_high']:.3g})"
    )
