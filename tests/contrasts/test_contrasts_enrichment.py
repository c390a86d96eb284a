"""Over-representation equals Fisher's exact test; corrections stay within a contrast."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact
from statsmodels.stats.multitest import multipletests

from m1pipe.contrasts.config import EnrichConfig
from m1pipe.contrasts.differential import adjusted
from m1pipe.contrasts.enrichment import (
    GeneSets,
    changed_genes,
    enrich,
    names_in_sets,
    over_represented,
    read_gmt,
)
from m1pipe.errors import InputError

GENES = [f"g{j}" for j in range(60)]


def _sets(rng: np.random.Generator, n: int = 8) -> GeneSets:
    chosen = [frozenset(rng.choice(GENES, 12, replace=False)) for _ in range(n)]
    return GeneSets([f"t{i}" for i in range(n)], [f"about {i}" for i in range(n)], chosen)


def _table(rng: np.random.Generator, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    lfc = rng.standard_normal((n, len(GENES)))
    padj = rng.random((n, len(GENES))) ** 3
    lost = rng.random(lfc.shape) < 0.1
    lfc[lost] = padj[lost] = np.nan
    return lfc, padj


def test_over_representation_is_fishers_exact_test_on_the_measured_genes() -> None:
    rng = np.random.default_rng(0)
    (lfc, padj), sets = _table(rng), _sets(rng)
    config = EnrichConfig(min_size=1, gene_alpha=0.2, direction="up")
    changed, members = changed_genes(lfc, padj, config), sets.members(GENES)
    pvalue, ratio = over_represented(changed, lfc, members, config)
    for i, j in np.ndindex(pvalue.shape):
        measured = np.isfinite(lfc[i])
        inside, up = members[j][measured], (padj[i] < 0.2)[measured] & (lfc[i] > 0)[measured]
        counts = [[(inside & up).sum(), (inside & ~up).sum()],
                  [(~inside & up).sum(), (~inside & ~up).sum()]]  # fmt: skip
        assert pvalue[i, j] == pytest.approx(fisher_exact(counts, "greater")[1], rel=1e-9)
        expected = inside.sum() * up.sum() / measured.sum()
        assert ratio[i, j] == pytest.approx((inside & up).sum() / expected)


def test_sets_of_another_size_are_not_tested() -> None:
    rng = np.random.default_rng(1)
    lfc, padj = _table(rng)
    members = _sets(rng).members(GENES)
    sizes = (np.isfinite(lfc)[:, None, :] & members[None]).sum(axis=2)
    config = EnrichConfig(min_size=11, max_size=11)
    pvalue, _ = over_represented(changed_genes(lfc, padj, config), lfc, members, config)
    assert np.array_equal(np.isfinite(pvalue), sizes == 11) and (sizes == 11).any()


def test_correction_is_within_a_contrast_and_over_what_was_tested() -> None:
    rng = np.random.default_rng(2)
    pvalue = rng.random((4, 9)) ** 4
    pvalue[1, 3] = pvalue[2] = np.nan
    found = adjusted(pvalue)
    for row, expected in zip(found, pvalue, strict=True):
        known = np.isfinite(expected)
        assert np.array_equal(np.isfinite(row), known)
        if known.any():
            assert row[known] == pytest.approx(multipletests(expected[known], method="fdr_bh")[1])


@pytest.mark.parametrize(
    ("direction", "expected"), [("both", [4, 0]), ("up", [4, 2]), ("down", [0, 1])]
)
def test_the_largest_changes(direction: str, expected: list[int]) -> None:
    lfc = np.array([[-3.0, -0.5, 1, np.nan, 4]])
    config = EnrichConfig(top=2, direction=direction)  # type: ignore[arg-type]
    assert set(np.flatnonzero(changed_genes(lfc, None, config)[0])) == set(expected)


def test_a_planted_set_is_found_and_rare_and_common_ones_are_left_out() -> None:
    rng = np.random.default_rng(3)
    lfc = rng.standard_normal((20, len(GENES)))
    padj = np.ones_like(lfc)
    lfc[:10, :12], padj[:10, :12] = 3, 1e-6
    chosen = [frozenset(GENES[:12]), frozenset(GENES[20:32]), frozenset(GENES[30:42])]
    sets = GeneSets(["planted", "silent", "other"], ["", "", ""], chosen)
    found = enrich(lfc, padj, GENES, sets, EnrichConfig())
    assert found.var.index.tolist() == ["planted"] and found.n_tested == 3
    assert found.enriched[:, 0].tolist() == [1] * 10 + [0] * 10
    assert found.var.loc["planted", ["n_genes", "n_measured", "prevalence"]].tolist() == [
        12,
        12,
        0.5,
    ]
    with pytest.raises(InputError, match="expected sets enriched in 60% to 99% of 20 contrasts"):
        enrich(lfc, padj, GENES, sets, EnrichConfig(min_prevalence=0.6))


def test_shuffled_genes_give_few_false_finds() -> None:
    rng = np.random.default_rng(4)
    lfc = rng.standard_normal((400, len(GENES)))
    padj = np.where(rng.random(lfc.shape) < 0.2, 0.0, 1.0)
    members = _sets(rng, 12).members(GENES)
    pvalue, _ = over_represented(
        changed_genes(lfc, padj, EnrichConfig()), lfc, members, EnrichConfig()
    )
    any_found = (adjusted(pvalue) < 0.05).any(axis=1)
    assert any_found.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize(
    ("settings", "padj", "names", "reason"),
    [
        ({}, False, GENES, "expected adjusted p-values"),
        ({}, True, [f"ENSG{j}" for j in range(60)], "are the names of the same kind"),
        ({"min_size": 50}, True, GENES, "expected some with 50 to 500 of the 60 genes"),
    ],
)
def test_what_cannot_be_tested_is_said(
    settings: dict[str, int], padj: bool, names: list[str], reason: str
) -> None:
    rng = np.random.default_rng(5)
    lfc, known = _table(rng)
    with pytest.raises(InputError, match=reason):
        enrich(lfc, known if padj else None, names, _sets(rng), EnrichConfig(**settings))


def test_gmt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.gmt"
    path.write_text("a\tfirst\tg1\tg2\n\nb\t\tENSG00000141510\t\na\tagain\tg3\n")
    sets = read_gmt(path)
    assert sets.names == ["a", "b"] and sets.descriptions == ["first", ""]
    assert sets.genes == [{"g1", "g2", "g3"}, {"ENSG00000141510"}]
    inside = sets.members(["g3", "x", "ENSG00000141510.17"])
    assert inside.tolist() == [[True, False, False], [False, False, True]]
    var = pd.DataFrame({"symbol": ["g1", "g2", "g2"]}, index=["A|1", "B|2", "g3|3"])
    assert names_in_sets(var, sets) == ["g1", "g2", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a\n", "line 1: expected a name"), ("a\tb\t \n", "line 1: expected genes of 'a'"),
     ("", "found an empty file")],
)  # fmt: skip
def test_a_broken_gmt_is_said(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "s.gmt"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_gmt(path)


def test_ranks_find_the_planted_set() -> None:
    pytest.importorskip("gseapy")
    rng = np.random.default_rng(6)
    lfc = rng.standard_normal((2, len(GENES)))
    lfc[:, :12] += 3
    sets = GeneSets(
        ["planted", "other"], ["", ""], [frozenset(GENES[:12]), frozenset(GENES[30:42])]
    )
    config = EnrichConfig(method="prerank", permutations=200, alpha=0.2, max_prevalence=1)
    found = enrich(lfc, None, GENES, sets, config)
    assert "planted" in found.var.index and (found.score[:, 0] > 1).all()
