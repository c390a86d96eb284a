"""Keeps a run's folder and the screen up to date while the training loop runs."""

import csv
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from m1pipe.artefacts import reading
from m1pipe.atomic import atomic_file, writing
from m1pipe.console import MINUTE, log, progress, shows_bars
from m1pipe.encoder.plan import TrainingPlan
from m1pipe.training.history import epoch_line
from m1pipe.workflow.run_folder import RunFolder

STATUS_SECONDS = 10.0
LEAST_SECONDS = 1.0  # between two lines of the log
STEPS_FILE = "steps.csv"


class Watcher:
    """Told of every step and epoch; a context manager around the loop.

    After an epoch history.csv and status.json are written anew, the latter also every few
    seconds. On a terminal a bar moves; elsewhere the log has a line an epoch (`LEAST_SECONDS`
    apart), or, where all of them take less than `MINUTE`, a line for each tenth of them.

    Parameters
    ----------
    folder : RunFolder
        Of the run, entered already.
    plan : TrainingPlan
        What is trained.
    log_steps : bool
        Keep the losses of every step in steps.csv.
    """

    def __init__(self, folder: RunFolder, plan: TrainingPlan, *, log_steps: bool = False) -> None:
        self.folder = folder
        self.n_epochs = plan.config.training.epochs or 0
        self.n_steps = plan.n_steps
        self.rows: list[dict[str, Any]] = []
        self.steps = _StepLog(folder) if log_steps else None
        total = self.n_epochs * plan.n_steps
        shown = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = progress(total=total, label="training", shown=shown)
        self._begun = self._told = time.monotonic()
        self._done_before = self._done = self._n_said = 0

    def go_on(self, fit: Mapping[str, Any]) -> None:
        """Take up what a checkpoint's "fit" entry says of the epochs and steps before."""
        self.rows = list(fit["rows"])
        self._done = self._done_before = fit["epoch"] * self.n_steps + fit["step"]
        self.bar.initial = self.bar.n = self._done
        if self.steps is not None:
            self.steps.keep(fit["epoch"], fit["step"])
        log.info("resumed after epoch %d, step %d", fit["epoch"], fit["step"])

    def on_step(self, step: dict[str, Any]) -> None:
        """Count a step."""
        self._done += 1
        self.bar.update(1)
        if self.steps is not None:
            self.steps.write(step)
        if time.monotonic() - self._told > STATUS_SECONDS:
            self._tell(epoch=step["epoch"], step=step["step"], loss=step["loss"])

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Write an epoch down."""
        self.rows.append(row)
        self.folder.write_history(self.rows)
        loss = row.get("val_loss", row["train_loss"])
        self._tell(epoch=row["epoch"], step=self.n_steps, loss=loss)
        if shows_bars():
            self.bar.set_postfix_str(f"epoch {row['epoch']}/{self.n_epochs}, loss {loss:.5g}")
        elif self._is_due(row["epoch"]):
            log.info("%s", epoch_line(row, self.n_epochs))

    def _is_due(self, epoch: int) -> bool:
        """Whether an epoch has its line of the log."""
        seconds = [float(row["seconds"]) for row in self.rows]
        takes_minutes = sum(seconds) / len(seconds) * self.n_epochs >= MINUTE
        last_of_tenth = epoch * 10 // self.n_epochs > (epoch - 1) * 10 // self.n_epochs
        is_due = last_of_tenth or (takes_minutes and sum(seconds[self._n_said :]) >= LEAST_SECONDS)
        self._n_said = len(seconds) if is_due else self._n_said
        return is_due

    def _tell(self, **fields: Any) -> None:
        self._told = time.monotonic()
        rate = (self._done - self._done_before) / max(self._told - self._begun, 1e-9)
        left = (self.n_epochs * self.n_steps - self._done) / max(rate, 1e-9)
        self.folder.update(epochs=self.n_epochs, eta_seconds=round(left, 1), **fields)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.steps is not None:
            self.steps.close()


class _StepLog:
    """Lines of steps.csv, each complete when it is there at all."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / STEPS_FILE
        self._file: TextIO | None = None

    def keep(self, n_epochs: int, n_steps: int) -> None:
        """Drop the lines of steps that come after the checkpoint and will be done again."""
        if not self._path.exists():
            return
        with open(self._path, newline="", encoding="utf-8") as old, atomic_file(self._path) as new:
            with reading(self._path, "losses of steps", remedy="remove the file"):
                reader = csv.DictReader(old)
                whole = [row for row in reader if None not in row.values()]
                done = [
                    r for r in whole if (int(r["epoch"]), int(r["step"])) <= (n_epochs + 1, n_steps)
                ]
            with open(new, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, reader.fieldnames or [], lineterminator="\n")
                writer.writeheader()
                writer.writerows(done)

    def write(self, step: Mapping[str, Any]) -> None:
        """Append a step."""
        with writing(self._path):
            if self._file is None:
                fresh = not self._path.exists()
                self._file = open(self._path, "a", buffering=1, newline="", encoding="utf-8")
                if fresh:
                    self._file.write(",".join(step) + "\n")
            self._file.write(",".join(str(value) for value in step.values()) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with writing(self._path):
                self._file.close()
