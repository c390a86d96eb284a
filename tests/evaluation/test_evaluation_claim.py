from typing import Any

import numpy as np
import pytest
from scripts import load_script

from m1pipe.errors import InputError
from m1pipe.evaluation.claim import is_won, make_claim, pairs_won
from m1pipe.evaluation.compare import compare

FAMILY = [("vae", "ridge"), ("vae", "mean"), ("ae", "ridge"), ("ae", "mean")]


def losses_of(rng: np.random.Generator, folds: np.ndarray, gap: float) -> dict[str, np.ndarray]:
    base = rng.gamma(20, 1 / 20, size=folds.shape)
    levels = {"mean": 2.0, "ridge": 1.0, "vae": 1.0 - gap, "ae": 1.0}
    return {m: level * base + 0.1 * rng.normal(size=folds.shape) for m, level in levels.items()}


@pytest.mark.parametrize("test", ["nadeau_bengio", "strata_flip"])
@pytest.mark.parametrize("rope", [0.0, 0.05])
def test_pairs_are_won_as_the_table_of_tests_says(test: str, rope: float) -> None:
    rng = np.random.default_rng(0)
    folds = np.stack([rng.permutation(np.arange(120) % 12)])
    found = []
    for gap in (0.0, 0.03, 0.1):
        losses = losses_of(rng, folds, gap)
        table = compare(losses, folds, family=FAMILY, headline=test)
        table = table[table["test"] == test].set_index(["model_a", "model_b"])
        bound = [-rope * losses[b].mean() for _, b in table.index]
        expected = (table["p_holm"] < 0.05) & (table["ci_high"] < bound)
        claim = make_claim(FAMILY, metric="mse", test=test, rope=rope)
        assert pairs_won(claim, losses, folds) == expected.to_dict()
        found += expected.tolist()
    assert any(found) and not all(found)


def test_a_win_is_one_model_against_all_its_rivals() -> None:
    rng = np.random.default_rng(0)
    folds = np.stack([rng.permutation(np.arange(120) % 5)])
    named: dict[str, Any] = {"metric": "mse", "test": "nadeau_bengio", "rope": 0.01}
    better, alike = losses_of(rng, folds, 0.3), losses_of(rng, folds, 0.0)
    claim = make_claim(FAMILY, **named)
    assert claim["win"] == {"vae": ["ridge", "mean"], "ae": ["ridge", "mean"]}
    assert is_won(claim, better, folds) and not is_won(claim, alike, folds)
    only = make_claim(FAMILY, **named, win=["ae:mean"])
    assert only["win"] == {"ae": ["mean"]} and is_won(only, alike, folds)
    other = make_claim(FAMILY, **named, win=["ae:ridge,mean"])
    assert not is_won(other, better, folds)
    far = make_claim(FAMILY, **{**named, "rope": 0.4})
    assert not is_won(far, better, folds)  # 30 % lower, where 40 % count as none


def test_what_can_be_claimed() -> None:
    with pytest.raises(InputError, match="found no encoder"):
        make_claim([], metric="mse", test="nadeau_bengio", rope=0.0)
    for text in ("vae", "vae:", "vae:raw", "raw:mean"):
        with pytest.raises(InputError, match="expected MODEL:RIVALS of the family, vae:ridge,mean"):
            make_claim(FAMILY, metric="mse", test="nadeau_bengio", rope=0.0, win=[text])


def test_declared_wins_are_hardly_ever_false_whatever_is_picked() -> None:
    lines = load_script("declared_null").measure(15, 0)
    rates = {(line["claim"], line["what"]): line["false_wins"][0] for line in lines}
    for claim in ("default", "laxest"):
        assert rates[claim, "exploratory"] > 0.4  # the search finds something
        assert rates[claim, "declared"] <= 0.05
        assert rates[claim, "declared, picked"] == rates[claim, "declared"]
        assert rates[claim, "after the results"] == 0
