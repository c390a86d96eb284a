"""Gene sets, as GMT files hold them: one a line, name, description, genes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.data.names import NAME_COLUMNS, canonical_gene, name_parts
from m1pipe.errors import InputError
from m1pipe.io.text.lines import open_lines


@dataclass(frozen=True, eq=False)
class GeneSets:
    """Named sets of genes.

    Attributes
    ----------
    names, descriptions : list of str
    genes : list of frozenset of str
    """

    names: list[str]
    descriptions: list[str]
    genes: list[frozenset[str]]

    def members(self, genes: Sequence[str]) -> np.ndarray:
        """Which of some genes each set holds.

        Parameters
        ----------
        genes : sequence of str
            Ensembl ids are compared without their version.

        Returns
        -------
        ndarray of bool, shape (n_sets, n_genes)
        """
        place = {canonical_gene(gene): i for i, gene in enumerate(genes)}
        inside = np.zeros((len(self.names), len(genes)), dtype=bool)
        for row, members in zip(inside, self.genes, strict=True):
            found = map(canonical_gene, members)
            row[[place[gene] for gene in found if gene in place]] = True
        return inside


def read_gmt(path: Path) -> GeneSets:
    """Read a GMT file, plain or compressed.

    Returns
    -------
    GeneSets
        Sets of one name are joined.

    Raises
    ------
    InputError
        If the file cannot be read, or a line has no genes.
    """
    described: dict[str, str] = {}
    genes: dict[str, set[str]] = {}
    with open_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                name, description, *members = (
                    line.decode("utf-8").removeprefix("\ufeff").split("\t")
                )
            except (UnicodeDecodeError, ValueError):
                raise InputError(
                    f"{path}: line {number}: expected a name, a description and genes, separated "
                    f"by tabs; found {line[:40].decode('latin-1')!r}"
                ) from None
            found = {member.strip() for member in members} - {""}
            if not found:
                raise InputError(f"{path}: line {number}: expected genes of {name!r}; found none")
            described.setdefault(name, description)
            genes.setdefault(name, set()).update(found)
    if not genes:
        raise InputError(f"{path}: expected gene sets; found an empty file")
    return GeneSets(list(genes), list(described.values()), [frozenset(g) for g in genes.values()])


def names_in_sets(var: pd.DataFrame, sets: GeneSets) -> list[str]:
    """The names of a matrix's genes, of several kinds, of which the sets know most.

    Parameters
    ----------
    var : DataFrame, shape (n_genes, n_columns)
        Indexed by gene; columns symbol, gene_id and gene_name and both halves of names such as
        ``TP53|7157`` are tried as well.

    Returns
    -------
    list of str
        One a gene; a name that an earlier gene bears already is left empty.
    """
    index = [str(name) for name in var.index]
    kinds = [index, *([name_parts(name)[i] for name in index] for i in (0, -1))]
    kinds += [var[column].astype(str).tolist() for column in NAME_COLUMNS if column in var.columns]
    known = {canonical_gene(gene) for members in sets.genes for gene in members}
    best = max(kinds, key=lambda names: len(known & {canonical_gene(name) for name in names}))
    repeated = pd.Index(best).duplicated()
    return ["" if twice else name for name, twice in zip(best, repeated, strict=True)]
