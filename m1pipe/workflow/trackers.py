"""The losses of a training in TensorBoard or MLflow too, where that is asked for."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from m1pipe.artefacts import read_json
from m1pipe.atomic import write_json
from m1pipe.console import log
from m1pipe.errors import InputError, StoppedBySignalError

Tracker = Literal["tensorboard", "mlflow"]
TellEpoch = Callable[[dict[str, Any]], None]
TENSORBOARD = "tensorboard"  # folder in that of the run
MLFLOW_FILE = "mlflow.json"  # which run of MLflow it is, for when it is resumed
TRACKER_FILES = (f"{TENSORBOARD}/*", MLFLOW_FILE)
_MODULES = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}


def tracked(
    tracker: Tracker | None, folder: Path, settings: Mapping[str, Any], n_done: int
) -> AbstractContextManager[TellEpoch]:
    """What tells a tracker of every epoch, with the names and values of history.csv.

    Parameters
    ----------
    tracker : "tensorboard", "mlflow" or None
        TensorBoard's events go into the run's folder; where MLflow's runs go is told by its own
        variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME). None: nothing is told.
    folder : Path
        Of the run.
    settings : mapping
        Part to settings; the parameters of MLflow's run.
    n_done : int
        Epochs that are finished already.

    Raises
    ------
    InputError
        If the tracker is not installed, or cannot be written to.
    """
    if tracker is None:
        return nullcontext(lambda row: None)
    if tracker == "tensorboard":
        return _tensorboard(folder / TENSORBOARD, n_done)
    return _mlflow(folder, settings)


def load_tracker(tracker: Tracker) -> Any:
    """The tracker's module.

    Raises
    ------
    InputError
        If it is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        return import_module(_MODULES[tracker])
    except ImportError:
        raise InputError(
            f"--log-to: expected the package {tracker}; found none: pip install 'm1pipe[{tracker}]'"
        ) from None


@contextmanager
def _tensorboard(folder: Path, n_done: int) -> Iterator[TellEpoch]:
    """Scalars by epoch; those of epochs that are done again count no more."""
    writer = load_tracker("tensorboard").SummaryWriter(str(folder), purge_step=n_done + 1)

    def tell(row: dict[str, Any]) -> None:
        for name, value in _numbers(row).items():
            writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    with writer:
        yield tell


@contextmanager
def _mlflow(folder: Path, settings: Mapping[str, Any]) -> Iterator[TellEpoch]:
    """Metrics by epoch and the settings, in a run of MLflow that ends as the training does.

    A server that fails later is named once, and told nothing more: the training goes on.
    """
    mlflow = load_tracker("mlflow")
    failed = mlflow.exceptions.MlflowException
    try:
        run_id = _begin(mlflow, folder)
        named = {f"{part}.{name}": v for part, of in settings.items() for name, v in of.items()}
        mlflow.log_params(named)
    except (failed, ImportError) as error:
        raise InputError(
            f"--log-to: expected an MLflow to write to; found none: {_first_sentence(error)}: set "
            "MLFLOW_TRACKING_URI to where your runs are"
        ) from None
    works, status = True, "FAILED"

    def write(call: Callable[..., Any], *values: Any, **options: Any) -> None:
        nonlocal works
        try:
            if works:
                call(*values, **options)
        except failed as error:
            works = False
            log.warning("warning: MLflow is told nothing more: %s", _first_sentence(error))

    try:
        yield lambda row: write(mlflow.log_metrics, _numbers(row), row["epoch"], run_id=run_id)
        status = "FINISHED"
    except (StoppedBySignalError, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        write(mlflow.end_run, status)


def _begin(mlflow: Any, folder: Path) -> str:
    """Start a run of MLflow, or take up the one that was begun; its id."""
    file = folder / MLFLOW_FILE
    known = None
    if file.is_file():
        known = read_json(file, "the run of MLflow", remedy="remove it").get("run_id")
    started = mlflow.start_run(run_id=known, run_name=None if known else folder.resolve().name)
    run_id = str(started.info.run_id)
    write_json(file, {"run_id": run_id})
    return run_id


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Columns of history.csv but the epoch."""
    return {name: float(value) for name, value in row.items() if name != "epoch"}


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", f"{error}\n".strip())[0].rstrip(".")[:200]
