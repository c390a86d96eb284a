"""What a command said."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A command's exit code, its results, and what it said beside them."""

    code: int
    out: str
    err: str
