"""Gene sets enriched among the changes of each contrast."""

import importlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom

from m1pipe.console import progress
from m1pipe.contrasts.config import EnrichConfig
from m1pipe.contrasts.gene_sets import GeneSets
from m1pipe.errors import InputError


@dataclass(frozen=True, eq=False)
class Enrichment:
    """Sets enriched in contrasts, those of the wanted prevalence only.

    Attributes
    ----------
    var : DataFrame
        Index: sets. Columns: description, n_genes (in the file), n_measured, prevalence.
    enriched : ndarray of float32, shape (n_contrasts, n_sets)
        1 where the adjusted p-value is below alpha, else 0.
    pvalue, padj : ndarray of float32, shape (n_contrasts, n_sets)
        NaN where a set has too few or too many of the contrast's genes.
    score : ndarray of float32, shape (n_contrasts, n_sets)
        Changed genes over those expected ("ora"), or the normalised enrichment score.
    n_tested : int
        Sets that were tested in any contrast, before the filter by prevalence.
    """

    var: pd.DataFrame
    enriched: np.ndarray
    pvalue: np.ndarray
    padj: np.ndarray
    score: np.ndarray
    n_tested: int


def enrich(
    lfc: np.ndarray, padj: np.ndarray | None, genes: list[str], sets: GeneSets, config: EnrichConfig
) -> Enrichment:
    """Test every gene set in every contrast.

    Parameters
    ----------
    lfc : ndarray, shape (n_contrasts, n_genes)
        Log fold changes, or anything whose size says how much a gene changed; NaN: not measured.
    padj : ndarray, shape (n_contrasts, n_genes), or None
        Adjusted p-values of the genes. For "ora" without `config.top`.
    genes : list of str, length n_genes
    sets : GeneSets
    config : EnrichConfig

    Returns
    -------
    Enrichment

    Raises
    ------
    InputError
        If no set has enough of the genes, p-values are needed and not there, or no set is
        enriched often enough.
    """
    members = sets.members(genes)
    wide = members.sum(axis=1)
    if not ((wide >= config.min_size) & (wide <= config.max_size)).any():
        raise InputError(
            f"gene sets: expected some with {config.min_size} to {config.max_size} of the "
            f"{len(genes)} genes ({', '.join(genes[:3])}, ...); found none: are the names of the "
            "same kind?"
        )
    if config.method == "ora":
        pvalue, score = over_represented(changed_genes(lfc, padj, config), lfc, members, config)
    else:
        pvalue, score = _prerank(lfc, genes, sets, config)
    return _kept(pvalue, score, sets, members, config)


def changed_genes(lfc: np.ndarray, padj: np.ndarray | None, config: EnrichConfig) -> np.ndarray:
    """Genes of each contrast that count as changed.

    Parameters
    ----------
    lfc : ndarray, shape (n_contrasts, n_genes)
    padj : ndarray, shape (n_contrasts, n_genes), or None
    config : EnrichConfig

    Returns
    -------
    ndarray of bool, shape (n_contrasts, n_genes)
    """
    sign = {"up": 1.0, "down": -1.0, "both": 0.0}[config.direction]
    size = np.abs(lfc) if sign == 0 else sign * lfc
    if config.top is None:
        if padj is None:
            raise InputError(
                "enrich: expected adjusted p-values (layer padj); found none: say by --top how "
                "many of the largest changes count"
            )
        return np.asarray((padj < config.gene_alpha) & (size > 0))
    size = np.where(np.isnan(size) | (size <= 0), -np.inf, size)
    top = np.zeros(lfc.shape, dtype=bool)
    order = np.argsort(-size, axis=1, kind="stable")[:, : config.top]
    np.put_along_axis(top, order, True, axis=1)
    return top & np.isfinite(size)


def over_represented(
    changed: np.ndarray, lfc: np.ndarray, members: np.ndarray, config: EnrichConfig
) -> tuple[np.ndarray, np.ndarray]:
    """One-sided hypergeometric tests against the background of all genes measured in a contrast.

    Parameters
    ----------
    changed : ndarray of bool, shape (n_contrasts, n_genes)
    lfc : ndarray, shape (n_contrasts, n_genes)
        NaN: not measured, not in the background.
    members : ndarray of bool, shape (n_sets, n_genes)
    config : EnrichConfig

    Returns
    -------
    pvalue : ndarray of float64, shape (n_contrasts, n_sets)
        P(as many changed genes of the set or more); NaN for sets of another size than wanted.
    ratio : ndarray of float64, shape (n_contrasts, n_sets)
        Changed genes of the set over their expected number.
    """
    measured = np.isfinite(lfc)
    inside = members.T.astype(np.float32)
    in_set = measured.astype(np.float32) @ inside
    hits = changed.astype(np.float32) @ inside
    n_background = measured.sum(axis=1)[:, None]
    n_changed = changed.sum(axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = hits * n_background / (in_set * n_changed)
    pvalue = hypergeom.sf(hits - 1, n_background, in_set, n_changed)
    tested = (in_set >= config.min_size) & (in_set <= config.max_size)
    return np.where(tested, pvalue, np.nan), np.where(tested, ratio, np.nan)


def adjusted(pvalue: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg within each contrast, over the sets tested there; NaN stays.

    Parameters
    ----------
    pvalue : ndarray, shape (n_contrasts, n_sets)

    Returns
    -------
    ndarray of float64, shape (n_contrasts, n_sets)
    """
    out = np.full(pvalue.shape, np.nan)
    for row, values in zip(out, pvalue, strict=True):
        known = np.isfinite(values)
        if known.any():
            row[known] = false_discovery_control(np.clip(values[known], 0, 1))
    return out


def _prerank(
    lfc: np.ndarray, genes: list[str], sets: GeneSets, config: EnrichConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Rank-based p-values and normalised scores, contrast by contrast."""
    try:
        gseapy = importlib.import_module("gseapy")
    except ImportError:
        raise InputError(
            "enrich: expected the package gseapy for --method prerank; found none: "
            "pip install 'm1pipe[gsea]'"
        ) from None
    known = {name: sorted(members) for name, members in zip(sets.names, sets.genes, strict=True)}
    place = {name: i for i, name in enumerate(sets.names)}
    pvalue = np.full((len(lfc), len(place)), np.nan)
    score = pvalue.copy()
    for i, row in enumerate(progress(lfc, total=len(lfc), label="contrasts")):
        measured = np.isfinite(row)
        ranks = pd.Series(row[measured], index=np.array(genes, dtype=object)[measured])
        found = gseapy.prerank(
            rnk=ranks.sort_values(ascending=False),
            gene_sets=known,
            min_size=config.min_size,
            max_size=config.max_size,
            permutation_num=config.permutations,
            seed=config.seed,
            threads=config.n_jobs,
            outdir=None,
            verbose=False,
        ).res2d
        columns = [place[name] for name in found["Term"]]
        pvalue[i, columns] = found["NOM p-val"].astype(float)
        score[i, columns] = found["NES"].astype(float)
    return pvalue, score


def _kept(
    pvalue: np.ndarray, score: np.ndarray, sets: GeneSets, members: np.ndarray, config: EnrichConfig
) -> Enrichment:
    """The sets whose prevalence is as wanted."""
    padj = adjusted(pvalue)
    enriched = padj < config.alpha
    prevalence = enriched.mean(axis=0)
    tested = np.isfinite(pvalue).any(axis=0)
    wanted = (prevalence >= config.min_prevalence) & (prevalence <= config.max_prevalence)
    kept = np.flatnonzero(tested & wanted & (prevalence > 0))
    if not kept.size:
        raise InputError(
            f"enrich: expected sets enriched in {config.min_prevalence:.0%} to "
            f"{config.max_prevalence:.0%} of {len(pvalue)} contrasts; found none among "
            f"{int(tested.sum())}: raise --alpha, or lower --min-prevalence"
        )
    var = pd.DataFrame(
        {
            "description": [sets.descriptions[i] for i in kept],
            "n_genes": [len(sets.genes[i]) for i in kept],
            "n_measured": members.sum(axis=1)[kept],
            "prevalence": prevalence[kept],
        },
        index=pd.Index([sets.names[i] for i in kept], dtype=object),
    )
    parts = {"enriched": enriched, "pvalue": pvalue, "padj": padj, "score": score}
    values = {name: part[:, kept].astype(np.float32) for name, part in parts.items()}
    return Enrichment(var, n_tested=int(tested.sum()), **values)
