"""The training data of a finished run, found again."""

import os
from pathlib import Path

from m1pipe.data.hdf5 import split_address
from m1pipe.errors import InputError
from m1pipe.evaluation.encoders import recorded_paths
from m1pipe.runs.folder import RunFolder
from m1pipe.runs.provenance import same_input

PathLike = str | os.PathLike[str]


def training_data(run: Path, data: PathLike | None, what_for: str, advice: str) -> Path:
    """The file that a run was trained on, as it was.

    Parameters
    ----------
    run : Path
    data : path or None
        Where it lies now. None: where it lay in training, to the run or absolutely.
    what_for, advice : str
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
    paths = [Path(data)] if data is not None else recorded_paths(known or {}, run)
    there = [path for path in paths if split_address(path)[0].exists()]
    if not there:
        raise InputError(
            f"{run}: expected the training data, {what_for}; found no file "
            f"{' or '.join(map(str, paths)) or 'named there'}: {advice}"
        )
    for path in there:
        if known is None or same_input(known, path):
            return path
    raise InputError(
        f"{there[0]}: expected the training data of {run} as they were; found another file: "
        f"{advice}"
    )
