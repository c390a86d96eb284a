"""The folder of a run: its settings, provenance, status, history and checkpoint.

Every file appears under its name only when it is complete, so that a run killed at any moment
leaves a folder that can be read, resumed or started again.
"""

import csv
import io
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from m1pipe.artefacts import read_json
from m1pipe.atomic import clear, is_part, make_folder, take_lock, write_json, write_text, writing
from m1pipe.console import log
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.provenance import REMEDY, job_id, make_provenance, now, read_provenance, same_input

Start = Literal["fresh", "resumed", "finished"]
OWN_FILES = ("config.json", "provenance.json", "history.csv", "log.txt", "resume.pt", "status.json")
STATES = ("running", "done", "stopped", "failed")


class _QuietHandler(logging.FileHandler):
    """A log on a full disk is no reason to stop: what needs the room says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""


class RunFolder:
    """The folder of one run, held by one process at a time.

    Used as a context manager around the work, after `prepare`: the way the block ends decides
    the state in `status.json` ("done", "stopped", "failed"). A run refused for its input before
    it had anything worth keeping leaves nothing behind.

    Parameters
    ----------
    path : path
        The folder; made by `prepare`.
    results : sequence of str
        Names of the result files and folders in it, removed when it is started again.

    Attributes
    ----------
    path, checkpoint : Path
        The folder, and `resume.pt` in it.
    """

    def __init__(self, path: str | os.PathLike[str], results: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "resume.pt"
        self._results = (*results, *OWN_FILES)
        self._status: dict[str, Any] = {}
        self._log: logging.FileHandler | None = None
        self._lock: int | None = None

    @property
    def state(self) -> str | None:
        """Of `status.json`: "running", "done", "stopped" or "failed"; None where there is no run.

        "running" is also what a killed run left behind.
        """
        state = (self._read("status.json") or {}).get("state")
        return str(state) if state in STATES else None

    def read_config(self) -> dict[str, Any] | None:
        """Settings in `config.json`, or None."""
        config = self._read("config.json")
        if config is not None and "n_latent" in (config.get("model") or ()):
            # Of a run that is older than these settings.
            config["model"].setdefault("latent_scale", "unit")
            config.get("selection", {}).setdefault("log2p1", False)
        return config

    def read_provenance(self) -> dict[str, Any] | None:
        """Contents of `provenance.json`, or None."""
        return read_provenance(self.path)

    def prepare(
        self,
        config: Mapping[str, Any],
        inputs: Mapping[str, str | os.PathLike[str]],
        *,
        seed: int | None = None,
        threads: int | None = None,
        force: bool = False,
    ) -> Start:
        """Make the folder ready, or say why it cannot be.

        A run of the same settings and inputs is resumed; one that is finished is left alone.

        Parameters
        ----------
        config : mapping
            Complete settings, as they go into `config.json`.
        inputs : mapping
            Role to file.
        seed, threads : int, optional
            For the provenance.
        force : bool
            Start again in a folder that holds a run.

        Returns
        -------
        "fresh", "resumed" or "finished"
            "finished": there is nothing left to do.

        Raises
        ------
        InputError
            If the folder holds a run of other settings or inputs, or other files, or if another
            process is at work in it.
        """
        state = self.state
        if self._only_begun(config):
            pass  # killed before there was anything to keep
        elif state is not None and not force:
            if state == "done" or self.checkpoint.exists():
                self._refuse_changes(config, inputs, finished=state == "done")
                if state == "done":
                    return "finished"
                self._note_resumption()
                return "resumed"
        elif state is None:
            self._refuse_other_files(force)
        provenance = make_provenance(inputs, folder=self.path, seed=seed, threads=threads)
        self._start_again(config, provenance)
        return "fresh"

    def update(self, **fields: Any) -> None:
        """Merge fields (epoch, loss, ...) into `status.json`."""
        self._status.update(fields, updated=now())
        write_json(self.path / "status.json", self._status)

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all epochs so far to `history.csv`, one row an epoch."""
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "history.csv", text.getvalue())

    def __enter__(self) -> "RunFolder":
        self._acquire()
        with writing(self.path / "log.txt"):
            self._log = _QuietHandler(self.path / "log.txt", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._log)
        self._status = {"host": socket.gethostname(), "job_id": job_id(), "pid": os.getpid()}
        self.update(state="running")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end(kind, error)
        finally:
            if self._log is not None:
                log.removeHandler(self._log)
                self._log.close()
            if kind is not None and issubclass(kind, InputError) and not self._worth_keeping():
                self._clear()
                if not any(self.path.iterdir()):
                    self.path.rmdir()
            self._release()

    def _end(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        """Write down how the run ended."""
        if kind is None:
            self.update(state="done")
            self.checkpoint.unlink(missing_ok=True)
        elif issubclass(kind, StoppedBySignalError | KeyboardInterrupt):
            self.update(state="stopped", message=str(error) or "interrupted")
        else:
            self.update(state="failed", message=f"{kind.__name__}: {error}")

    def _read(self, name: str) -> dict[str, Any] | None:
        file = self.path / name
        if not file.is_file():
            return None
        return read_json(file, "JSON written by m1pipe", remedy=REMEDY)

    def _acquire(self) -> None:
        """One process a folder."""
        if self._lock is None:
            self._lock = take_lock(self.path)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _worth_keeping(self) -> bool:
        return self.checkpoint.exists() or (self.path / "history.csv").exists()

    def _only_begun(self, config: Mapping[str, Any]) -> bool:
        """Whether a start was killed here before all was written that says what it was of."""
        if not self.path.is_dir():
            return False
        names = {name for name in os.listdir(self.path) if not is_part(name)}
        if not names or not names <= {"status.json", "config.json"}:
            return False
        known = self.read_config()
        return known is None or known.keys() == config.keys()

    def _refuse_other_files(self, force: bool) -> None:
        """Refuse a folder that holds no run; with `force` one with files of the names of ours."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path} is a file: choose another name for the run's folder")
        others = sorted(name for name in os.listdir(self.path) if not is_part(name))
        ours = [name for name in others if name in self._results]
        if others and (ours or not force):
            way = "move that file" if ours else "write into it with --force"
            raise InputError(
                f"{self.path} exists already and holds no run: found {(ours or others)[0]}: choose "
                f"another name, or {way}"
            )

    def _refuse_changes(
        self,
        config: Mapping[str, Any],
        inputs: Mapping[str, str | os.PathLike[str]],
        *,
        finished: bool,
    ) -> None:
        """Refuse other settings or inputs than those of the run, saying which."""
        changes = differences(self.read_config() or {}, config)
        known = (self.read_provenance() or {}).get("inputs", {})
        for role, path in inputs.items():
            if role not in known:
                changes.append(f"{role}: none there, {path} here")
            elif not same_input(known[role], path):
                changes.append(f"{role}: {path} is not the file that the run began with")
        gone = [role for role in known if role not in inputs]
        changes += [f"{role}: {known[role]['path']} there, none here" for role in gone]
        if changes:
            what, way = "an unfinished", "give what it began with, or start again"
            if finished:
                what, way = "a finished", "choose another name, or overwrite it"
            raise InputError(
                f"{self.path} holds {what} run that differs: {'; '.join(changes)}: {way} with "
                "--force"
            )

    def _note_resumption(self) -> None:
        self._acquire()
        self._sweep()
        provenance = self.read_provenance() or {}
        again = {"when": now(), "host": socket.gethostname(), "job_id": job_id()}
        provenance.setdefault("resumed", []).append(again)
        write_json(self.path / "provenance.json", provenance)

    def _start_again(self, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        make_folder(self.path)
        self._acquire()
        self._clear()
        write_json(self.path / "status.json", {"state": "running"})
        write_json(self.path / "config.json", config)
        write_json(self.path / "provenance.json", provenance)

    def _clear(self) -> None:
        """Remove what m1pipe wrote here, status.json last, and nothing else."""
        self._sweep()
        clear(self.path, self._results[:-1])
        clear(self.path, self._results)

    def _sweep(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        for name in self._results:
            for part in self.path.glob(f".{name}.*.part"):
                part.unlink()


def differences(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    prefix: str = "",
    words: tuple[str, str] = ("there", "here"),
) -> list[str]:
    """Settings that differ between two nested dictionaries, as "name: a there, b here"."""
    found: list[str] = []
    for name in sorted({*there, *here}):
        a, b = there.get(name), here.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.", words)
        elif a != b:
            found.append(f"{prefix}{name}: {a!r} {words[0]}, {b!r} {words[1]}")
    return found
