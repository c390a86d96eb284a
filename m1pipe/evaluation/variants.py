"""Rows beside a network's row: with synthetic samples added, and the controls of that."""

from collections.abc import Sequence

WEIGHTED = "_weighted"
BOOTSTRAP = "_bootstrap"
AUGMENTED = "_augmented"
VARIANTS = (WEIGHTED, BOOTSTRAP, AUGMENTED)


def variant_of(row: str) -> str | None:
    """What a row's name ends in, where it is a variant of another row.

    >>> variant_of("raw_augmented"), variant_of("raw")
    ('_augmented', None)
    """
    return next((suffix for suffix in VARIANTS if row.endswith(suffix)), None)


def plain_row(row: str) -> str:
    """The row that a variant stands beside; the row itself for others.

    >>> plain_row("raw_bootstrap"), plain_row("raw")
    ('raw', 'raw')
    """
    return row.removesuffix(variant_of(row) or "")


def augmented_pairs(rows: Sequence[str]) -> list[tuple[str, str]]:
    """Each augmented row with the row itself and with its controls."""
    return [
        (row, plain_row(row) + other)
        for row in rows
        if row.endswith(AUGMENTED)
        for other in ("", BOOTSTRAP, WEIGHTED)
        if plain_row(row) + other in rows
    ]
