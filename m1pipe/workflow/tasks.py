"""The stages of a study, their tasks, and what each reads and writes."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m1pipe.atomic import make_folder, write_json
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.split import HELD_OUT, TRAINING, SplitConfig
from m1pipe.settings import to_dict
from m1pipe.workflow.study import (
    TABLES_OF_CONVERT,
    Comparison,
    EncoderRuns,
    Generation,
    Scoring,
    Study,
)

CV = "cv"  # folder of the comparison
STAGES = ("convert", "train", "crossval", "gather", "generate", "quality")
RUN_FILES = ("model.json", "model.safetensors")
PLACES = ("device", "memory", "checkpoint_minutes", "micro_batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of a stage that is done, skipped or redone as a whole.

    Attributes
    ----------
    stage, name : str
        Such as "train" and "train-vae1".
    settings : dict
        Plain values that decide the result.
    inputs : dict of str to Path
        Role to file.
    outputs : tuple of Path
        Files that are there when it is done.
    folder : Path or None
        Run folder whose status.json says more while it runs.
    work : callable
        Does it, replacing what is there if told so, and returns what was done in a line.
    """

    stage: str
    name: str
    settings: dict[str, Any]
    inputs: dict[str, Path]
    outputs: tuple[Path, ...]
    folder: Path | None = None
    work: Callable[[bool], str]


def stage_tasks(study: Study, stage: str, *, apart: bool = False) -> list[Task]:
    """Tasks of a stage in order; none where the study has no such stage.

    Parameters
    ----------
    study : Study
    stage : str
        One of `STAGES`.
    apart : bool
        Every (repeat, fold) of a cross-validation is a task, as in a job array; otherwise they
        are one.
    """
    if stage == "convert":
        return [task for name in study.data for task in _data_tasks(study, name)]
    if stage == "train":
        return _train_tasks(study)
    if stage == "crossval" and study.crossval is not None:
        return _crossval_tasks(study, study.crossval, apart)
    if stage == "gather" and study.crossval is not None:
        return [_gather_task(study, study.crossval)]
    if stage == "generate" and study.generation is not None:
        return [_generate_task(study, study.generation)]
    if stage == "quality" and study.quality is not None:
        return [_quality_task(study, study.quality)]
    return []


def array_tasks(study: Study, stage: str) -> list[list[Task]]:
    """Tasks of a stage as a job array has them; those of one element run one after another."""
    if stage == "convert":
        return [tasks for name in study.data if (tasks := _data_tasks(study, name))]
    return [[task] for task in stage_tasks(study, stage, apart=True)]


def _data_tasks(study: Study, name: str) -> list[Task]:
    """Converting a data set, and splitting it."""
    data = study.data[name]
    tasks = []
    if data.source is not None and data.convert is not None:
        tasks.append(_convert_task(name, data.source, data.file, data.convert))
    if data.split is not None:
        tasks.append(_split_task(name, data.file, data.parts, data.split))
    return tasks


def _convert_task(name: str, source: Path, file: Path, config: ConvertConfig) -> Task:
    def convert(force: bool) -> str:
        from m1pipe.io.conversion import convert as conversion

        return str(conversion.convert(source, file, config, force=force))

    tables = {role: getattr(config, role) for role in TABLES_OF_CONVERT}
    tables = {role: Path(path) for role, path in tables.items() if path is not None}
    return Task(
        stage="convert",
        name=f"convert-{name}",
        # What a table holds is compared as an input; where it lies depends on the current folder.
        settings=to_dict(config) | {role: path.name for role, path in tables.items()},
        inputs={"source": source, **tables},
        outputs=(file,),
        work=convert,
    )


def _split_task(name: str, file: Path, parts: Path, config: SplitConfig) -> Task:
    def split(force: bool) -> str:
        from m1pipe.io.reader import open_matrix
        from m1pipe.io.split import split_matrix

        with open_matrix(file) as matrix:
            return split_matrix(matrix, parts, config, force=force)

    return Task(
        stage="convert",
        name=f"split-{name}",
        settings=to_dict(config),
        inputs={"data": file},
        outputs=(parts / TRAINING, parts / HELD_OUT),
        work=split,
    )


def _train_tasks(study: Study) -> list[Task]:
    return [
        _train_task(study, encoder, run)
        for encoder in study.encoders.values()
        if encoder.data is not None
        for run in encoder.runs
    ]


def _train_task(study: Study, encoder: EncoderRuns, run: str) -> Task:
    config, folder = encoder.runs[run], study.out / run
    inputs = {"data": study.path(str(encoder.data))}
    if config.selection.validation_file is not None:
        inputs["validation"] = Path(config.selection.validation_file)
    if config.selection.thin_to is not None:
        inputs["thinned to"] = Path(config.selection.thin_to)

    def train(force: bool) -> str:
        from m1pipe.workflow.training_run import run_training, summary_line

        trained = run_training(inputs["data"], folder, config, force=force)
        return summary_line(folder, trained)

    settings = to_dict(config)
    for name in PLACES:
        settings["training"].pop(name, None)
    return Task(
        stage="train",
        name=f"train-{run}",
        settings=settings,
        inputs=inputs,
        outputs=tuple(folder / name for name in RUN_FILES),
        folder=folder,
        work=train,
    )


def _crossval_tasks(study: Study, comparison: Comparison, apart: bool) -> list[Task]:
    if not apart or comparison.config.leave_out is not None:
        return [_crossval_task(study, comparison, "crossval", None)]
    return [
        _crossval_task(study, comparison, f"crossval-r{place[0]}-f{place[1]}", place)
        for place in _places(comparison)
    ]


def _places(comparison: Comparison) -> list[tuple[int, int]]:
    """(repeat, fold) of every share; none where the data decide how many folds there are."""
    config = comparison.config
    n_folds = 0 if config.leave_out is not None else config.folds
    return [(repeat, fold) for repeat in range(config.repeats) for fold in range(n_folds)]


def _crossval_task(
    study: Study,
    comparison: Comparison,
    name: str,
    only: tuple[int, int] | None,
) -> Task:
    folder = study.out / CV
    rows = {encoder: study.encoders[encoder] for encoder in comparison.encoders}

    def crossval(force: bool) -> str:
        from m1pipe.workflow.crossval_inputs import CrossvalRun
        from m1pipe.workflow.crossval_run import run_crossval

        run = CrossvalRun(
            x=str(study.path(comparison.x)),
            y=_given(study, comparison.y),
            multilabel=_given(study, comparison.multilabel),
            label=comparison.label,
            targets=comparison.targets,
            encoders={encoder: _items(study, found) for encoder, found in rows.items()},
        )
        run_crossval(run, comparison.config, folder, only=only, force=force, report=False)
        return f"{folder}: {'all folds' if only is None else f'fold {only[1]}'} done"

    return Task(
        stage="crossval",
        name=name,
        settings=_crossval_settings(comparison, rows),
        inputs=_crossval_inputs(study, comparison, rows),
        outputs=tuple(_shares(folder, comparison).values())
        if only is None
        else (_share(folder, *only),),
        work=crossval,
    )


def _crossval_settings(comparison: Comparison, rows: Mapping[str, EncoderRuns]) -> dict[str, Any]:
    settings: dict[str, Any] = to_dict(comparison.config)
    settings["head"].pop("device")
    in_fold = {
        name: [to_dict(config) for config in row.runs.values()]
        for name, row in rows.items()
        if row.data is None
    }
    for config in (config for seeds in in_fold.values() for config in seeds):
        for name in PLACES:
            config["training"].pop(name, None)
    targets = None if comparison.targets is None else list(comparison.targets)
    return {
        "crossval": settings,
        "label": comparison.label,
        "targets": targets,
        "encoders": {name: list(row.runs) for name, row in rows.items()},
        "in_fold": in_fold,
    }


def _crossval_inputs(
    study: Study, comparison: Comparison, rows: Mapping[str, EncoderRuns]
) -> dict[str, Path]:
    files = {"x": comparison.x, "y": comparison.y, "multilabel": comparison.multilabel}
    inputs = {role: study.path(name) for role, name in files.items() if name is not None}
    for row in rows.values():
        for run in row.runs if row.data is not None else ():
            inputs[run] = study.out / run / RUN_FILES[1]
    return inputs


def _items(study: Study, encoder: EncoderRuns) -> tuple[str, ...]:
    """Runs of an encoder as `crossval` takes them; settings for the folds become files."""
    if encoder.data is not None:
        return tuple(str(study.out / run) for run in encoder.runs)
    items = []
    for run, config in encoder.runs.items():
        file = study.out / "stages" / f"encoder-{run}.json"
        make_folder(file.parent)
        write_json(file, to_dict(config))
        items.append(f"fold:{file}")
    return tuple(items)


def _given(study: Study, reference: str | None) -> str | None:
    return None if reference is None else str(study.path(reference))


def _share(folder: Path, repeat: int, fold: int) -> Path:
    """File of one share of a cross-validation that holds its result."""
    return folder / "shares" / f"r{repeat}_f{fold}" / "losses.h5"


def _shares(folder: Path, comparison: Comparison) -> dict[str, Path]:
    """Files that all shares leave, by role; the plan where their number is not known before."""
    places = _places(comparison)
    if not places:
        return {"plan": folder / "shares" / "plan.json"}
    return {f"repeat {r} fold {f}": _share(folder, r, f) for r, f in places}


def _gather_task(study: Study, comparison: Comparison) -> Task:
    folder = study.out / CV

    def gather(force: bool) -> str:
        from m1pipe.reports.verdicts import summary
        from m1pipe.workflow.crossval_run import gather as gathered

        return summary(gathered(folder), folder / "report.html")

    return Task(
        stage="gather",
        name="gather",
        settings={},
        inputs=_shares(folder, comparison),
        outputs=(folder / "summary.json", folder / "report.html"),
        work=gather,
    )


def _generate_task(study: Study, generation: Generation) -> Task:
    folder, file, config = study.out / generation.run, synthetic_file(study), generation.config
    trained = next(row for row in study.encoders.values() if generation.run in row.runs)
    data = study.path(str(trained.data))

    def generate(force: bool) -> str:
        from m1pipe.synthesis.generate import run_generate

        return run_generate(folder, file, config, data=data, force=force)

    return Task(
        stage="generate",
        name="generate",
        settings=to_dict(config),
        inputs={"model": folder / RUN_FILES[1], "data": data},
        outputs=(file,),
        work=generate,
    )


def synthetic_file(study: Study) -> Path:
    """Where the generated samples are."""
    return study.out / "synthetic.h5ad"


def _quality_task(study: Study, scoring: Scoring) -> Task:
    folder, config = study.out / "quality", scoring.config
    inputs = {
        "real": study.path(scoring.real),
        "synthetic": synthetic_file(study)
        if scoring.synthetic is None
        else study.path(scoring.synthetic),
        "holdout": study.path(scoring.holdout),
    }

    def score(force: bool) -> str:
        from m1pipe.workflow.quality_run import run_quality

        _, line = run_quality(**inputs, out=folder, config=config, force=force)
        return line

    return Task(
        stage="quality",
        name="quality",
        settings=to_dict(config),
        inputs=inputs,
        outputs=(folder / "quality.json", folder / "quality.html"),
        work=score,
    )
