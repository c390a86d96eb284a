"""Whether values can be what a file says they are: asked wherever a matrix is used."""

from m1pipe.data.matrix import Matrix
from m1pipe.data.unit_signs import log_fault, survey_rows, unit_fault
from m1pipe.data.units import LN
from m1pipe.errors import InputError


def check_units(matrix: Matrix) -> None:
    """Refuse a matrix whose values cannot be in the units that it says.

    Parameters
    ----------
    matrix : Matrix
        Some of its rows are read.

    Raises
    ------
    InputError
        With the way out.
    """
    if matrix.n_samples == 0 or matrix.n_genes == 0:
        return
    known = matrix.units.name not in ("unknown", "latent", "normal_score", "log_fold_change")
    fault = log_fault(matrix.units, matrix.logarithm)
    if not fault and known:
        X = matrix.some_rows()
        fault = unit_fault(matrix.units, survey_rows(X), X)
    if fault:
        where = str(matrix.path or "data")
        raise InputError(f"{where}: {fault}: {_way_out(matrix)}")


def _way_out(matrix: Matrix) -> str:
    units = LN if matrix.logarithm == "natural" else "U"
    if matrix.path is None:
        return f"correct uns['units'] ({LN!r} for ln(1 + x))"
    return f"say what the values are, m1pipe convert {matrix.path} NEW.h5ad --units {units}"
