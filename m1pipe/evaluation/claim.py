"""What a declared comparison claims beforehand, and whether its result bears that out.

A claim is plain data, as it stands in `plan.toml`: nothing but it and the losses decides whether
there is a win.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m1pipe.errors import InputError, SettingError
from m1pipe.evaluation.compare import fold_differences
from m1pipe.evaluation.compared_models import Pair
from m1pipe.evaluation.significance import holm, nadeau_bengio, sign_flip_interval

ALPHA = 0.05
SENTENCE = (
    "a model wins against a rival if p, adjusted by Holm over the family, is below level, and the "
    "whole 95 % interval of the difference lies beyond the region of practical equivalence, which "
    "is rope times the rival's loss; there is a declared win if one model of [claim.win] wins "
    "against all rivals listed beside it"
)


def make_claim(
    family: Sequence[Pair], *, metric: str, test: str, rope: float, win: Sequence[str] = ()
) -> dict[str, Any]:
    """A claim about the pairs of a family.

    Parameters
    ----------
    family : sequence of (str, str)
        The declared pairs, of which Holm's correction is taken.
    metric, test : str
        The headline loss and the headline test.
    rope : float
        Half width of the region of practical equivalence, as a share of the rival's loss.
    win : sequence of str
        `MODEL:RIVAL,RIVAL2`, what would be a win. Empty: a model that wins against all its rivals.

    Raises
    ------
    InputError
        If there is no pair, or one of `win` is not in the family.
    """
    if not family:
        raise InputError(
            "--declare: expected a comparison with a declared family; found no encoder, so that "
            "nothing could be won: name one with --encoder"
        )
    rivals: dict[str, list[str]] = {}
    for a, b in family:
        rivals.setdefault(a, []).append(b)
    chosen: dict[str, list[str]] = {}
    for text in win:
        model, _, others = text.partition(":")
        named = [name.strip() for name in others.split(",")]
        unknown = [name for name in named if name not in rivals.get(model, ())]
        if unknown:
            known = "; ".join(f"{a}:{','.join(names)}" for a, names in rivals.items())
            raise SettingError(
                f"--win: expected MODEL:RIVALS of the family, {known}; found {text!r}"
            )
        chosen[model] = list(dict.fromkeys([*chosen.get(model, ()), *named]))
    return {
        "metric": metric,
        "test": test,
        "adjustment": "holm",
        "level": ALPHA,
        "rope": rope,
        "rule": SENTENCE,
        "family": [list(pair) for pair in family],
        "win": chosen or rivals,
    }


def pairs_won(
    claim: Mapping[str, Any], losses: Mapping[str, np.ndarray], folds: np.ndarray
) -> dict[Pair, bool]:
    """Which pairs of the family are won, by the rule of the claim.

    Parameters
    ----------
    claim : mapping
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
    folds : ndarray of int, shape (n_repeats, n_samples)
    """
    tests = []
    for a, b in claim["family"]:
        d = fold_differences(losses[a], losses[b], folds)
        by_strata = claim["test"] == "strata_flip"
        tests.append(sign_flip_interval(d) if by_strata else nadeau_bengio(d, int(folds.max()) + 1))
    adjusted = holm([test.p for test in tests])
    return {
        (a, b): bool(p < claim["level"] and test.ci_high < -claim["rope"] * losses[b].mean())
        for (a, b), test, p in zip(claim["family"], tests, adjusted, strict=True)
    }


def is_won(claim: Mapping[str, Any], losses: Mapping[str, np.ndarray], folds: np.ndarray) -> bool:
    """Whether there is a declared win; the parameters are those of `pairs_won`."""
    won = pairs_won(claim, losses, folds)
    return any(all(won[a, b] for b in rivals) for a, rivals in claim["win"].items())
