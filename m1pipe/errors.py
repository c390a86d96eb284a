"""What can go wrong, and by whose fault: each kind of failure has one exit code."""

EXIT_DONE = 0
EXIT_INPUT = 1
EXIT_USAGE = 2
EXIT_OURS = 70
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line that says what was expected, what was found, where, and what to do.
    """


class StoppedBySignalError(Exception):
    """A signal asked the run to stop; its state is saved and the run can be resumed."""


class PeerLostError(Exception):
    """Another process of the same run has ended; that one says why."""


class M1Warning(UserWarning):
    """Something was skipped, repaired or doubtful; the result stands but should be read with it."""
