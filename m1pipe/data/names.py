"""Matching genes and samples by name, never by position."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe.data.labels import MISSING
from m1pipe.errors import InputError

_ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*\d{6,})\.\d+(_PAR_Y)?$")
_TWO_NAMES = re.compile(r"^(\S+) \(([^\s()]+)\)$")
_MOST_PARTS = 3  # of a name; more are a transcript's whole description, as GENCODE has it
NAME_COLUMNS = ("symbol", "gene_id", "gene_name")
_NO_NAME = MISSING | {"?", "-", ".", "None"}
_REPEATED_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """Where the wanted genes stand among the available ones.

    Attributes
    ----------
    columns : ndarray of int64, shape (n_wanted,)
        Column of each wanted gene among the available ones; -1 where it is missing.
    missing : list of str
        Wanted genes that were not found.
    n_extra : int
        Available genes that nobody wants.
    coverage : float
        Share of the wanted genes that were found, in [0, 1].
    how : str
        What the genes were matched by, with counts.
    """

    columns: np.ndarray
    missing: list[str]
    n_extra: int
    coverage: float
    how: str


def canonical_gene(name: str) -> str:
    """Ensembl id without its version; any other name as it is.

    >>> canonical_gene("ENSG00000142507.14")
    'ENSG00000142507'
    >>> canonical_gene("ENSG00000182378.15_PAR_Y"), canonical_gene("MSTRG.12.3")
    ('ENSG00000182378_PAR_Y', 'MSTRG.12.3')
    """
    found = _ENSEMBL_VERSION.match(name)
    return found.group(1) + (found.group(2) or "") if found else name


def plain(name: str) -> str:
    """A name without case and without all that is no letter or digit."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def name_parts(name: str) -> list[str]:
    """Names that one name is made of, Ensembl ids without version; itself where it is one.

    >>> name_parts("TP53|7157"), name_parts("ENSG00000141510.17|TP53"), name_parts("TP53 (7157)")
    (['TP53', '7157'], ['ENSG00000141510', 'TP53'], ['TP53', '7157'])
    """
    two = _TWO_NAMES.match(name)
    parts = list(two.groups()) if two else [part.strip() for part in name.split("|")]
    kept = parts[:1] if len(parts) > _MOST_PARTS else parts
    return [canonical_gene(part) for part in kept if part not in _NO_NAME] or [name]


def resolve_aliases(names: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Names with aliases replaced, as they are or else without the version of an Ensembl id.

    Parameters
    ----------
    names : sequence of str
    aliases : mapping of str to str
        Alias to name, as `m1pipe.io.tables.read_aliases` reads them.

    Examples
    --------
    >>> resolve_aliases(["ENSG00000141510.17", "P53", "X"], {"ENSG00000141510": "TP53", "P53": "Q"})
    ['TP53', 'Q', 'X']
    """
    return [aliases.get(name) or aliases.get(canonical_gene(name), name) for name in names]


def match_genes(
    wanted: Sequence[str],
    available: Sequence[str],
    *,
    available_var: pd.DataFrame | None = None,
    wanted_var: pd.DataFrame | None = None,
    aliases: Mapping[str, str] | None = None,
) -> GeneMatch:
    """Find each wanted gene among the available ones, by name.

    Four ways are tried in turn, each for the genes that are still missing: the exact name; the
    Ensembl id without version; the alias table that was given; and symbol or id, from names such
    as ``TP53|7157`` and from the columns symbol, gene_id and gene_name of the annotations, these
    through the alias table too. An alias or symbol that more than one gene bears serves nobody,
    and no available gene is used twice.

    Parameters
    ----------
    wanted, available : sequence of str
        Gene names, unique in each.
    available_var, wanted_var : DataFrame, shape (n_genes, n_columns), optional
        Annotations, one row a gene in the same order.
    aliases : mapping of str to str, optional
        Other names of genes and the names that they stand for, on either side.

    Returns
    -------
    GeneMatch

    Raises
    ------
    InputError
        If a name occurs twice, or an Ensembl id is there in two versions and neither is exact.
    """
    refuse_duplicates(wanted, "wanted genes")
    refuse_duplicates(available, "available genes")
    columns = _places(wanted, available)
    counts = [("exact name", int((columns >= 0).sum()))]
    counts.append(("Ensembl id without version", _match_canonical(columns, wanted, available)))
    if aliases and (columns < 0).any():
        given = ([{name} for name in resolve_aliases(n, aliases)] for n in (wanted, available))
        counts.append(("alias table", _match_aliases(columns, *given)))
    if (columns < 0).any():
        wanted_names = _aliases(wanted, wanted_var, aliases or {})
        available_names = _aliases(available, available_var, aliases or {})
        counts.append(("symbol or id", _match_aliases(columns, wanted_names, available_names)))
    missing = [name for name, column in zip(wanted, columns, strict=True) if column < 0]
    n_found = len(wanted) - len(missing)
    return GeneMatch(
        columns=columns,
        missing=missing,
        n_extra=len(available) - n_found,
        coverage=n_found / len(wanted) if len(wanted) else 0.0,
        how=", ".join(f"{n} by {way}" for way, n in counts if n) or "none found",
    )


def require_coverage(match: GeneMatch, minimum: float, what: str) -> None:
    """Refuse a match that leaves too many genes out.

    Parameters
    ----------
    match : GeneMatch
        From `match_genes`.
    minimum : float
        Smallest share of the wanted genes that must be found; at least one must be in any case.
    what : str
        Named in the message, such as a file's name.

    Raises
    ------
    InputError
        With the counts and the first missing genes.
    """
    n_wanted = match.columns.size
    n_found = n_wanted - len(match.missing)
    if n_found and match.coverage >= minimum:
        return
    named = ", ".join(match.missing[:3])
    expected = f"at least {minimum:.0%}" if minimum < 1 else "all"
    lower = ", or lower --min-coverage" if minimum < 1 else ""
    raise InputError(
        f"{what}: expected {expected} of the encoder's {n_wanted} genes; found "
        f"{n_found} ({match.coverage:.1%}), missing are {named}, ...: check that the gene names "
        f"are of the same kind, name them by --aliases{lower}"
    )


def pair_samples(
    x_samples: Sequence[str], y_samples: Sequence[str], *, y_columns: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Samples that two matrices share, by id.

    Parameters
    ----------
    x_samples, y_samples : sequence of str
        Sample ids, unique in each.
    y_columns : sequence of str, optional
        Looked at where no id is shared: whether Y is transposed.

    Returns
    -------
    ix, iy : ndarray of int64, shape (n_common,)
        Rows of X, ascending, and the rows of Y that bear the same ids.

    Raises
    ------
    InputError
        If an id occurs twice, or none is in both.
    """
    refuse_duplicates(x_samples, "samples of X")
    refuse_duplicates(y_samples, "samples of Y")
    rows = _places(x_samples, y_samples)
    ix = np.flatnonzero(rows >= 0)
    if ix.size:
        return ix, rows[ix]
    if not set(x_samples).isdisjoint(y_columns):
        raise InputError(
            f"samples: expected X's as the rows of Y; found them as its columns "
            f"({', '.join(y_columns[:3])}...): convert Y with --genes-as-rows"
        )
    near = near_names(x_samples, y_samples)
    raise InputError(
        "samples: expected ids that X and Y share; found none: X has "
        f"{', '.join(x_samples[:3])}, ...; Y has {', '.join(y_samples[:3])}, ...: "
        f"{near and near + '; '}name the samples alike in both"
    )


def near_names(names: Sequence[str], others: Sequence[str]) -> str:
    """How names of two sides differ that may be the same; empty where none are near.

    Examples
    --------
    >>> near_names(["s1", "s2"], ["S2 ", "s3"])
    "'s2' and 'S2 ' differ by blanks, case or marks only"
    >>> near_names(["TCGA-A1-A0SB-01A"], ["TCGA-A1-A0SB"])
    "'TCGA-A1-A0SB' is the beginning of 'TCGA-A1-A0SB-01A'"
    """
    known, by_letters = set(others), {_letters(name): name for name in others}
    unmatched = [name for name in names if name not in known]
    for name in unmatched:
        near = by_letters.get(_letters(name))
        if near is not None:
            return f"{name!r} and {near!r} differ by blanks, case or marks only"
    own = set(names)
    pairs = [(unmatched, [name for name in others if name not in own])]
    for longer, shorter in (*pairs, *(pair[::-1] for pair in pairs)):
        heads = {name for name in shorter if name}
        for name in longer:
            cuts = [found.start() for found in re.finditer(r"[\W_]", name)]
            head = next((name[:cut] for cut in reversed(cuts) if name[:cut] in heads), None)
            if head is not None:
                return f"{head!r} is the beginning of {name!r}"
    return ""


def _letters(name: str) -> str:
    """A name by its letters and digits, without the X that R puts before a number."""
    return re.sub(r"[\W_]+|^x(?=\d)", "", name.casefold())


def refuse_duplicates(names: Sequence[str], what: str) -> None:
    """Raise an InputError that names the first name that occurs twice."""
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in seen:
            raise InputError(
                f"{what}: expected unique names; found {name!r} at positions {seen[name] + 1} and "
                f"{position + 1}: rename or drop one of them"
            )
        seen[name] = position


def _places(wanted: Sequence[str], available: Sequence[str]) -> np.ndarray:
    """Place of each name among those available; -1 where it is missing."""
    column_of = {name: i for i, name in enumerate(available)}
    return np.array([column_of.get(name, -1) for name in wanted], dtype=np.int64)


def _match_canonical(columns: np.ndarray, wanted: Sequence[str], available: Sequence[str]) -> int:
    """Fill gaps in `columns` by canonical name; the number filled."""
    taken = set(columns.tolist())
    column_of: dict[str, int] = {}
    repeated: set[str] = set()
    for i, name in enumerate(available):
        if i not in taken:
            key = canonical_gene(name)
            if key in column_of:
                repeated.add(key)
            column_of.setdefault(key, i)
    filled = 0
    for position in np.flatnonzero(columns < 0).tolist():
        key = canonical_gene(wanted[position])
        if key in repeated:
            raise InputError(
                f"available genes: expected one version of {key}; found several: drop all but one"
            )
        column = column_of.pop(key, -1)
        if column >= 0:
            columns[position] = column
            filled += 1
    return filled


def _aliases(
    names: Sequence[str], var: pd.DataFrame | None, table: Mapping[str, str]
) -> list[set[str]]:
    """Other names of each gene, from its name, its annotations and a table of aliases."""
    aliases = [{canonical_gene(name), *name_parts(name)} for name in names]
    for values in _name_columns(var):
        for own, value in zip(aliases, values, strict=True):
            own.update(name_parts(value))
    for own in aliases:
        own -= _NO_NAME
        own.update(resolve_aliases(list(own), table) if table else ())
    return aliases


def _name_columns(var: pd.DataFrame | None) -> Iterable[list[str]]:
    """Annotation columns that name each gene; an isoform table's gene_id repeats and is none."""
    if var is None:
        return
    for column in NAME_COLUMNS:
        if column in var.columns:
            values = var[column].astype(str)
            if values[~values.isin(_NO_NAME)].duplicated().mean() <= _REPEATED_SHARE:
                yield values.tolist()


def _match_aliases(
    columns: np.ndarray, wanted: Sequence[set[str]], available: Sequence[set[str]]
) -> int:
    """Fill gaps in `columns` where an alias names one gene on each side; the number filled."""
    taken = set(columns.tolist())
    bearers = _bearers(available)
    askers = _bearers(wanted)
    filled = 0
    for position in np.flatnonzero(columns < 0).tolist():
        found = {
            bearers[alias][0]
            for alias in wanted[position]
            if len(bearers.get(alias, ())) == 1 and len(askers[alias]) == 1
        } - taken
        if len(found) == 1:
            columns[position] = found.pop()
            taken.add(int(columns[position]))
            filled += 1
    return filled


def _bearers(aliases: Sequence[set[str]]) -> dict[str, list[int]]:
    """Positions of the genes that bear each alias."""
    bearers: dict[str, list[int]] = {}
    for position, own in enumerate(aliases):
        for alias in own:
            bearers.setdefault(alias, []).append(position)
    return bearers
