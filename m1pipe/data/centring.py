"""Genes centred and scaled within studies, by each study's own samples, before an encoder.

The simple alternative to a decoder that is told the batch: what a study shifts or stretches is
taken off, and with it whatever differs between the studies' mixtures of samples.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe.artefacts import hold_in_rows
from m1pipe.console import log
from m1pipe.data.labels import as_text, listed_columns, read_column
from m1pipe.data.recipe import Aligned
from m1pipe.data.transforms import FLOOR_SHARE
from m1pipe.errors import InputError, M1Warning

FEWEST, FEW = 3, 10
ALL = "all samples"
_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Centring:
    """What genes are brought to, whatever their study.

    Attributes
    ----------
    column : str
        Of obs, that names the study of a sample.
    location, scale : ndarray of float32, shape (n_genes,)
        Mean of the training samples, and their spread within studies, in the units of training.
    """

    column: str
    location: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        hold_in_rows(self)


class CentredWithin(Aligned):
    """Aligned data whose genes have, within each study, the training samples' mean and spread.

    Attributes
    ----------
    centring : Centring
    """

    def __init__(
        self,
        aligned: Aligned,
        column: str,
        *,
        centring: Centring | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        """Read some samples of every study once, for its means and spreads.

        Parameters
        ----------
        aligned : Aligned
        column : str
        centring : Centring, optional
            Of the training samples. Left out: these are they, and none may lack an entry.
        rows : ndarray of int, shape (n_rows,), optional
            Samples that means and spreads are taken from. Left out: all.
        """
        keeps = {"keep_missing": aligned.keep_missing, "keep_lacking": aligned.keep_lacking}
        super().__init__(aligned.matrix, aligned.recipe, aligned.match, aligned.counted, **keeps)
        rows = np.arange(self.matrix.n_samples) if rows is None else rows
        names = study_names(self.matrix.obs, column, rows, needed=centring is None)
        self._codes = np.full(len(names), -1)
        known, self._codes[rows] = np.unique(names[rows], return_inverse=True)
        sizes = np.bincount(self._codes[rows])
        _check_sizes(known, sizes, str(self.matrix.path or "data"))
        self._means, spreads, total = self._moments(rows, sizes.size)
        if centring is None:
            weight = (sizes / sizes.sum())[:, None]
            location, scale = (weight * self._means).sum(axis=0), np.sqrt(total)
            location, scale = location.astype(np.float32), scale.astype(np.float32)
            centring = Centring(column, location, np.where(scale > 0, scale, np.float32(1)))
        self.centring = centring
        self._spreads = np.maximum(spreads, FLOOR_SHARE * centring.scale)
        log.info(
            "genes are centred and scaled within %s by the samples' own levels: %s",
            column,
            ", ".join(f"{name} ({n})" for name, n in zip(known, sizes, strict=True)),
        )

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """As of `Aligned`, centred; of samples that means and spreads were taken from alone."""
        X, codes = super().take(indices, out=out), self._codes[indices]
        if (codes < 0).any():
            raise ValueError("centring: a sample is of no study that was measured")
        X -= self._means[codes]
        X *= self.centring.scale / self._spreads[codes]
        X += self.centring.location
        return X

    def _moments(self, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and spread of every gene in every study, and its variance within studies."""
        shape = (n, self.shape[1])
        sums, squares, counts = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        blocks = np.array_split(rows, max(1, rows.size // _BLOCK_ROWS))
        for block in blocks:
            _add_by(sums, counts, super().take(block), self._codes[block])
        means = sums / np.maximum(counts, 1)
        for block in blocks:
            codes = self._codes[block]
            _add_by(squares, None, (super().take(block) - means[codes]) ** 2, codes)
        spreads = np.sqrt(squares / np.maximum(counts, 1))
        return (
            means.astype(np.float32),
            spreads.astype(np.float32),
            squares.sum(axis=0) / np.maximum(counts.sum(axis=0), 1),
        )


def _add_by(sums: np.ndarray, counts: np.ndarray | None, X: np.ndarray, codes: np.ndarray) -> None:
    """Add the known levels of rows to the sums of their studies."""
    for code in np.unique(codes):
        own = X[codes == code]
        sums[code] += np.nansum(own, axis=0, dtype=np.float64)
        if counts is not None:
            counts[code] += np.isfinite(own).sum(axis=0)


def study_names(obs: pd.DataFrame, column: str, rows: np.ndarray, *, needed: bool) -> np.ndarray:
    """Study of every sample as text; one study where a new file does not name them.

    Raises
    ------
    InputError
        If the column, or an entry of some row, is not there and `needed`.
    """
    if column not in obs.columns:
        if needed:
            raise InputError(
                f"--center-within: expected a column of obs ({listed_columns(obs)}); "
                f"found {column!r}"
            )
        return np.full(len(obs), ALL, dtype=object)
    values = read_column(obs, column, "--center-within")
    lacking = np.flatnonzero(values.isna().to_numpy()[rows])
    if lacking.size:
        raise InputError(
            f"--center-within: expected an entry of every sample in {column!r}; {lacking.size} "
            f"have none, such as {obs.index[rows[lacking[0]]]!r}: leave them out"
        )
    return as_text(values)


def _check_sizes(names: np.ndarray, sizes: np.ndarray, where: str) -> None:
    small = [f"{name} ({n})" for name, n in zip(names, sizes, strict=True) if n < FEW]
    if sizes.min() < FEWEST:
        raise InputError(
            f"{where}: --center-within: expected at least {FEWEST} samples of every study, by "
            f"which its genes are centred; found {names[sizes.argmin()]} ({sizes.min()}): leave it "
            "out, or use an encoder that was trained without --center-within"
        )
    if small:
        warnings.warn(
            f"{where}: center-within: studies of under {FEW} samples are centred by chance as much "
            f"as by their shift: {', '.join(small)}",
            M1Warning,
            stacklevel=4,
        )
