"""A study: data, encoders, cross-validation and generation in one TOML file, checked as a whole.

Reading it loads no torch, so that job scripts are written and a mistake is found at once.
"""

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.split import HELD_OUT, TRAINING, SplitConfig
from m1pipe.settings import build, read_config_file, refuse_unknown
from m1pipe.synthesis.config import GenerateConfig, QualityConfig

TABLES = ("out", "convert", "data", "encoders", "crossval", "generation", "quality", "jobs")
TABLES_OF_CONVERT = ("lengths", "labels", "var", "runs", "aliases")
CONDITIONS = ("where", "rows")
NAMED = ("y", "label", "multilabel", "targets")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One matrix: a file as it is, or a source that is converted, and perhaps split in two.

    Attributes
    ----------
    file : Path
        The h5ad (or other readable) file, converted or not.
    source : Path or None
        What it is converted from.
    convert : ConvertConfig or None
    split : SplitConfig or None
    parts : Path
        Folder of the two halves.
    """

    file: Path
    source: Path | None
    convert: ConvertConfig | None
    split: SplitConfig | None
    parts: Path


@dataclass(frozen=True, kw_only=True)
class EncoderRuns:
    """One encoder of the comparison, trained from each seed.

    Attributes
    ----------
    data : str or None
        What it is trained on; None where it is trained inside each training fold.
    runs : dict of str to EncoderConfig
        Name of the run's folder (or of the settings, in the fold) to its settings.
    """

    data: str | None
    runs: dict[str, EncoderConfig]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The cross-validation: what is predicted from what, by which encoders."""

    x: str
    y: str | None
    multilabel: str | None
    label: str | None
    targets: tuple[str, ...] | None
    encoders: tuple[str, ...]
    config: CrossvalConfig


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Synthetic samples of one run."""

    run: str
    config: GenerateConfig


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Synthetic samples against real ones; `synthetic` None: those that the study generates."""

    real: str
    synthetic: str | None
    holdout: str
    config: QualityConfig


@dataclass(frozen=True, kw_only=True)
class Study:
    """What `study.toml` says, with every setting checked.

    Attributes
    ----------
    file : Path
        The TOML file; paths in it are relative to its folder.
    out : Path
        Folder of all results.
    data : dict of str to DataSet
    encoders : dict of str to EncoderRuns
    crossval : Comparison or None
    generation : Generation or None
    quality : Scoring or None
    jobs : dict
        Table of resources, as `m1pipe.workflow.jobs` reads it.
    """

    file: Path
    out: Path
    data: dict[str, DataSet]
    encoders: dict[str, EncoderRuns]
    crossval: Comparison | None
    generation: Generation | None
    quality: Scoring | None
    jobs: Table

    @property
    def folder(self) -> Path:
        """Folder of the TOML file."""
        return self.file.parent

    def path(self, reference: str) -> Path:
        """File behind a data set's NAME, NAME.training or NAME.held_out."""
        name, _, part = reference.partition(".")
        data = self.data[name]
        return (
            data.parts / {"training": TRAINING, "held_out": HELD_OUT}[part] if part else data.file
        )


def read_study(path: str | os.PathLike[str], *, files: bool = True) -> Study:
    """Read and check a study's TOML file.

    Parameters
    ----------
    path : path
    files : bool
        The data that it names have to be there.

    Raises
    ------
    InputError
        If it cannot be read, a name or a value in it is unknown, or a file is not there.
    """
    path = Path(path)
    tables = read_config_file(path)
    _refuse_control(path.name, f"{str(path)!r}: the file's name")
    _refuse_control(tables, str(path))
    _refuse_unknown(tables, TABLES, str(path))
    for name in TABLES[1:]:
        _table(tables, name, str(path))
    out = path.parent / _text(tables, "out", "runs", str(path))
    data = _read_data(tables, path, out, files=files)
    encoders = _read_encoders(tables, path, data)
    return Study(
        file=path,
        out=out,
        data=data,
        encoders=encoders,
        crossval=_read_crossval(tables, path, data, encoders),
        generation=_read_generation(tables, path, encoders),
        quality=_read_quality(tables, path, data),
        jobs=tables.get("jobs", {}),
    )


def _read_data(tables: Table, path: Path, out: Path, *, files: bool) -> dict[str, DataSet]:
    where = f"{path}: data"
    found: dict[str, DataSet] = {}
    for name, table in _named_tables(tables, "data", path).items():
        here = f"{where}.{name}"
        given = dict(table)
        split = given.pop("split", None)
        file, source = given.pop("file", None), given.pop("source", None)
        if (file is None) == (source is None):
            raise InputError(
                f"{here}: expected `file` (used as it is) or `source` (converted), one of them"
            )
        if file is not None and given:
            raise InputError(f"{here}: {next(iter(given))}: only a `source` is converted")
        parent = path.parent
        config = None
        if source is not None:
            settings = _in_folder({**tables.get("convert", {}), **given}, parent)
            config = build(ConvertConfig, settings, where=here)
        origin = parent / str(source if file is None else file)
        if files and not origin.exists():
            raise InputError(f"{here}: expected a file; found no {origin}")
        found[name] = DataSet(
            file=out / "data" / f"{name}.h5ad" if file is None else parent / str(file),
            source=None if source is None else parent / str(source),
            convert=config,
            split=None if split is None else build(SplitConfig, split, where=f"{here}.split"),
            parts=out / "data" / name,
        )
    return found


def _in_folder(settings: Table, folder: Path) -> Table:
    """The same settings with their tables relative to the study's folder."""
    tables = {name: settings[name] for name in TABLES_OF_CONVERT if settings.get(name) is not None}
    return {**settings, **{name: str(folder / str(table)) for name, table in tables.items()}}


def _read_encoders(
    tables: Table, path: Path, data: Mapping[str, DataSet]
) -> dict[str, EncoderRuns]:
    found: dict[str, EncoderRuns] = {}
    for name, table in _named_tables(tables, "encoders", path).items():
        where = f"{path}: encoders.{name}"
        given = dict(table)
        in_fold = given.pop("in_fold", False)
        source, preset = given.pop("data", None), given.pop("preset", None)
        seeds = given.pop("seeds", None)
        if (source is None) != bool(in_fold):
            raise InputError(f"{where}: expected `data`, or `in_fold = true`, one of them")
        layers = [preset_options(preset) if preset else {}, given]
        config = build(EncoderConfig, *layers, where=where)
        runs = {name: config}
        if seeds is not None:
            if not isinstance(seeds, list) or not seeds or len({*seeds}) < len(seeds):
                raise InputError(
                    f"{where}: seeds: expected a list of different numbers; found {seeds!r}"
                )
            runs = {
                f"{name}{seed}": build(EncoderConfig, *layers, {"seed": seed}, where=where)
                for seed in seeds
            }
        if source is not None:
            _check_data(source, data, f"{where}: data")
        found[name] = EncoderRuns(data=source, runs=runs)
    _refuse_same_runs(found, str(path))
    return found


def _refuse_same_runs(encoders: Mapping[str, EncoderRuns], where: str) -> None:
    names = [run for encoder in encoders.values() for run in encoder.runs]
    taken = {"data", "stages", "logs", "cv", "quality", "synthetic"}
    twice = [name for name in names if names.count(name) > 1 or name in taken]
    if twice:
        raise InputError(
            f"{where}: encoders: the folder of a run would be {twice[0]!r}, which is taken: "
            "choose another name"
        )


def _read_crossval(
    tables: Table, path: Path, data: Mapping[str, DataSet], encoders: Mapping[str, EncoderRuns]
) -> Comparison | None:
    if "crossval" not in tables:
        return None
    where = f"{path}: crossval"
    given = dict(tables["crossval"])
    x = given.pop("x", None)
    if x is None:
        raise InputError(f"{where}: expected `x`, the data set with the genes; found none")
    named = {name: given.pop(name, None) for name in NAMED}
    if sum(named[name] is not None for name in ("y", "label", "multilabel")) != 1:
        raise InputError(f"{where}: expected one of y, label and multilabel, to be predicted")
    if x == named["y"]:
        raise InputError(f"{where}: y: expected other data than x; found {x!r} for both")
    for role, reference in (("x", x), ("y", named["y"]), ("multilabel", named["multilabel"])):
        if reference is not None:
            _check_data(reference, data, f"{where}: {role}")
    chosen = given.pop("encoders", list(encoders))
    unknown = [name for name in chosen if name not in encoders]
    if unknown:
        raise InputError(
            f"{where}: encoders: expected names of [encoders] ({', '.join(encoders) or 'none'}); "
            f"found {unknown[0]!r}"
        )
    targets = named.pop("targets")
    return Comparison(
        x=x,
        **named,
        targets=None if targets is None else tuple(targets),
        encoders=tuple(chosen),
        config=build(CrossvalConfig, given, where=where),
    )


def _read_generation(
    tables: Table, path: Path, encoders: Mapping[str, EncoderRuns]
) -> Generation | None:
    if "generation" not in tables:
        return None
    where = f"{path}: generation"
    given = dict(tables["generation"])
    trained = [run for row in encoders.values() if row.data is not None for run in row.runs]
    run = given.pop("run", None)
    if run not in trained:
        raise InputError(
            f"{where}: run: expected the encoder of one seed ({', '.join(trained) or 'none'}); "
            f"found {run!r}"
        )
    given["condition"] = [tuple(item) for item in given.get("condition", [])]
    return Generation(run=run, config=build(GenerateConfig, given, where=where))


def _read_quality(tables: Table, path: Path, data: Mapping[str, DataSet]) -> Scoring | None:
    if "quality" not in tables:
        return None
    where = f"{path}: quality"
    given = dict(tables["quality"])
    roles = {role: given.pop(role, None) for role in ("real", "holdout", "synthetic")}
    if "generation" in tables and roles["synthetic"] is not None:
        raise InputError(f"{where}: synthetic: the samples that are generated; leave it out")
    for role, reference in roles.items():
        if reference is not None:
            _check_data(reference, data, f"{where}: {role}")
        elif role != "synthetic" or "generation" not in tables:
            raise InputError(f"{where}: expected `{role}`, a data set; found none")
    return Scoring(**roles, config=build(QualityConfig, given, where=where))


def _check_data(reference: Any, data: Mapping[str, DataSet], where: str) -> None:
    """Refuse a reference to data that the study does not have."""
    name, _, part = str(reference).partition(".")
    if name not in data:
        raise InputError(
            f"{where}: expected a name of [data] ({', '.join(data) or 'none'}); found {reference!r}"
        )
    if part and (data[name].split is None or part not in ("training", "held_out")):
        raise InputError(
            f"{where}: expected {name}, or with [data.{name}.split] {name}.training or "
            f"{name}.held_out; found {reference!r}"
        )


def _named_tables(tables: Table, kind: str, path: Path) -> dict[str, Table]:
    """Sub-tables of [kind], their names checked."""
    found: dict[str, Table] = tables.get(kind, {})
    for name in found:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{path}: {kind}: expected a name of letters, digits, _, + and -; found {name!r}"
            )
        _table(found, name, f"{path}: {kind}")
    return found


def _table(tables: Table, name: str, where: str) -> None:
    if name in tables and not isinstance(tables[name], dict):
        raise InputError(f"{where}: {name}: expected a table; found {tables[name]!r}")


def _text(tables: Table, name: str, default: str, where: str) -> str:
    value = tables.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{where}: {name}: expected text; found {value!r}")
    return value


def _refuse_control(value: Any, where: str) -> None:
    """Refuse characters that would end a line of a script, wherever text stands.

    Conditions on samples, which no script holds, may go over several lines.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            _refuse_control(name, where)
            if name not in CONDITIONS:
                _refuse_control(part, f"{where}: {name}")
    elif isinstance(value, list):
        for part in value:
            _refuse_control(part, where)
    elif isinstance(value, str):
        wrong = [c for c in value if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if wrong:
            raise InputError(
                f"{where}: expected single lines without control characters; found {wrong[0]!r} "
                f"in {value!r}"
            )


def _refuse_unknown(tables: Table, known: tuple[str, ...], where: str) -> None:
    for name in tables:
        if name not in known:
            refuse_unknown(name, known, where, "table")
