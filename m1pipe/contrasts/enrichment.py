"""Gene sets (GMT files), and which of them are enriched among the changes of each contrast."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from m1pipe.console import progress
from m1pipe.contrasts.config import EnrichConfig
from m1pipe.contrasts.differential import adjusted
from m1pipe.data.names import NAME_COLUMNS, canonical_gene, name_parts
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.text.lines import open_lines
from m1pipe.settings import optional_package


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
    skipped : dict of int to str
        Rows of contrasts that could not be tested, which are NaN throughout, and why.
    """

    var: pd.DataFrame
    enriched: np.ndarray
    pvalue: np.ndarray
    padj: np.ndarray
    score: np.ndarray
    n_tested: int
    skipped: dict[int, str] = field(default_factory=dict)


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
                text = line.decode("utf-8").removeprefix("\ufeff")
                name, description, *members = text.split("\t")
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
        skipped = {int(i): "no gene was measured" for i in np.flatnonzero(~np.isfinite(lfc).any(1))}
        pvalue, score = over_represented(changed_genes(lfc, padj, config), lfc, members, config)
    else:
        pvalue, score, skipped = _prerank(lfc, genes, sets, members, config)
    if len(skipped) == len(lfc):
        raise InputError(
            f"enrich: expected contrasts that can be tested; none of {len(lfc)} can: the first "
            f"because {next(iter(skipped.values()))}"
        )
    return _kept(pvalue, score, sets, members, config=config, skipped=skipped)


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


def _prerank(
    lfc: np.ndarray, genes: list[str], sets: GeneSets, members: np.ndarray, config: EnrichConfig
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Rank-based p-values and normalised scores, contrast by contrast; what could not be ranked."""
    gseapy = optional_package("gseapy", "enrich", "gsea", way=" for --method prerank")
    known = {name: sorted(members) for name, members in zip(sets.names, sets.genes, strict=True)}
    place = {name: i for i, name in enumerate(sets.names)}
    pvalue = np.full((len(lfc), len(place)), np.nan)
    score = pvalue.copy()
    skipped: dict[int, str] = {}
    for i, row in enumerate(progress(lfc, total=len(lfc), label="contrasts")):
        measured = np.isfinite(row)
        reason = _why_not_ranked(row[measured], members[:, measured], config)
        if reason:
            skipped[i] = reason
            continue
        ranks = pd.Series(row[measured], index=np.array(genes, dtype=object)[measured])
        try:
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
        except (ValueError, LookupError, ArithmeticError, TypeError) as error:
            skipped[i] = f"gseapy could not rank it ({' '.join(str(error).split())[:100]})"
            continue
        columns = [place[name] for name in found["Term"]]
        pvalue[i, columns] = found["NOM p-val"].astype(float)
        score[i, columns] = found["NES"].astype(float)
    return pvalue, score, skipped


def _why_not_ranked(changes: np.ndarray, members: np.ndarray, config: EnrichConfig) -> str:
    """Why the changes of a contrast's measured genes cannot be ranked; empty where they can."""
    if not changes.size:
        return "no gene was measured"
    if np.ptp(changes) == 0:
        return "all genes change alike"
    sizes = members.sum(axis=1)
    if not ((sizes >= config.min_size) & (sizes <= config.max_size)).any():
        return f"no set has {config.min_size} to {config.max_size} of its {changes.size} genes"
    return ""


def _kept(
    pvalue: np.ndarray,
    score: np.ndarray,
    sets: GeneSets,
    members: np.ndarray,
    *,
    config: EnrichConfig,
    skipped: dict[int, str],
) -> Enrichment:
    """The sets whose prevalence is as wanted."""
    padj = adjusted(pvalue)
    enriched = padj < config.alpha
    prevalence = enriched.mean(axis=0)
    tested = np.isfinite(pvalue).any(axis=0)
    wanted = (prevalence >= config.min_prevalence) & (prevalence <= config.max_prevalence)
    kept = np.flatnonzero(tested & wanted & (prevalence > 0))
    if not (prevalence > 0).any():
        text = "enrich: no set is enriched in any contrast: X is 0 throughout; raise --alpha"
        warnings.warn(text, M1Warning, stacklevel=4)
        kept = np.flatnonzero(tested)
    if not kept.size:
        raise InputError(
            f"enrich: expected sets enriched in {config.min_prevalence:.0%} to "
            f"{config.max_prevalence:.0%} of {len(pvalue)} contrasts; found none among "
            f"{int(tested.sum())}: {_why_none(prevalence[tested], config)}"
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
    values["enriched"][list(skipped)] = np.nan
    return Enrichment(var, n_tested=int(tested.sum()), skipped=skipped, **values)


def _why_none(prevalence: np.ndarray, config: EnrichConfig) -> str:
    """Which setting left no set."""
    often, rare = prevalence > config.max_prevalence, prevalence < config.min_prevalence
    if often.sum() > (rare & (prevalence > 0)).sum():
        return f"{int(often.sum())} are enriched in more contrasts: raise --max-prevalence"
    return f"{int((prevalence > 0).sum())} are enriched in fewer: lower --min-prevalence"
