"""A flag that signals raise and the training loop looks at after every step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from m1pipe.errors import StoppedBySignalError

AGAIN = "run the same command again to resume"


class StopFlag:
    """While entered, signals that ask for an end raise a flag instead of ending the process.

    SIGTERM, SIGUSR1 and SIGUSR2 (what queues send before a limit) and Ctrl-C are caught; the
    earlier handlers come back on leaving. A second Ctrl-C interrupts at once. Outside the main
    thread no handler can be installed, and only `set` raises the flag.

    Attributes
    ----------
    reason : str or None
        Name of the signal that came, or the text given to `set`.
    """

    SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")

    def __init__(self) -> None:
        self.reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for name in self.SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def set(self, reason: str) -> None:
        """Raise the flag by hand."""
        self.reason = reason

    @property
    def is_set(self) -> bool:
        """Whether an end was asked for."""
        return self.reason is not None

    def leave(self, where: str) -> NoReturn:
        """Raise the exception that the flag stands for; the state must be saved by then.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.
        StoppedBySignalError
            After any other signal.
        """
        if self.reason == "SIGINT":
            raise KeyboardInterrupt
        raise StoppedBySignalError(f"stopped by {self.reason} {where}; {AGAIN}")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self.reason == "SIGINT":
            raise KeyboardInterrupt
        self.reason = name


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """In a block, SIGTERM, SIGUSR1 and SIGUSR2 raise `StoppedBySignalError` where they find it.

    For work without a checkpoint, which begins anew. A `StopFlag` entered inside takes over.
    Outside the main thread nothing is changed.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedBySignalError(f"stopped by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in StopFlag.SIGNALS if name != "SIGINT"]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
