"""The training data of a finished run, found again."""

import os
from pathlib import Path

from m1pipe.errors import InputError
from m1pipe.runs.folder import RunFolder
from m1pipe.runs.provenance import same_input

PathLike = str | os.PathLike[str]


def training_data(run: Path, data: PathLike | None, what_for: str) -> Path:
    """The file that a run was trained on, as it was.

    Parameters
    ----------
    run : Path
    data : path or None
        Where it lies now. None: where it lay in training.
    what_for : str
        For the message.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is no such file, or it is another one.
    """
    known = ((RunFolder(run).read_provenance() or {}).get("inputs") or {}).get("data")
    path = data if data is not None else known and known["path"]
    advice = "say where it is with --data, or take --sampler prior"
    if path is None or not Path(path).exists():
        raise InputError(
            f"{run}: expected the training data, {what_for}; found no file "
            f"{path or 'named there'}: {advice}"
        )
    if known is not None and not same_input(known, path):
        raise InputError(
            f"{path}: expected the training data of {run} as they were; found another file: "
            f"{advice}"
        )
    return Path(path)
