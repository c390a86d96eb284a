"""Every guard is in the report and the summary, also where it found nothing."""

import ast
from pathlib import Path

import pytest

import m1pipe
from m1pipe.reports.terms import GUARDS, guard_counts, model_label

EVALUATION = Path(m1pipe.__file__).parent / "evaluation"
OF_ANOTHER_PAGE = {"fitted_on", "one_donor"}


def _alarm_names() -> set[str]:
    """First argument of every Alarm(...) in the code of the comparison."""
    names = set()
    for path in EVALUATION.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Alarm":
                first = node.args[0]
                names |= {first.value} if isinstance(first, ast.Constant) else set()
    return {str(name) for name in names}


def test_every_alarm_of_the_code_is_listed() -> None:
    found = _alarm_names()
    assert len(found) > 15
    assert found - OF_ANOTHER_PAGE <= set(GUARDS)


def test_guards_that_found_nothing_are_told_too() -> None:
    counts = guard_counts(["dead_units", "dead_units", "of_tomorrow"])
    assert counts["dead_units"] == 2 and counts["of_tomorrow"] == 1
    assert sum(counts.values()) == 3 and set(GUARDS) <= set(counts)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ridge_gene", "ridge regression on the genes, and the isoform's own gene"),
        ("raw_gene", "linear model and network on the genes, and the isoform's own gene"),
        ("pca_linear", "penalised linear model on PCA scores"),
        ("vae", "linear model and network on the 8 latents of vae"),
        ("ae_linear", "penalised linear model on the 8 latents of ae (beta 0)"),
        ("vae_ridge", "penalised linear model on the genes and the 8 latents of vae"),
        (
            "vae_ridge_gene",
            "penalised linear model on the genes and the 8 latents of vae, and the isoform's",
        ),
        ("vae_ensemble", "mean prediction of the 3 seeds of vae"),
        ("vae_augmented", "linear model and network on the 8 latents of vae, with synthetic"),
        ("unknown", ""),
    ],
)
def test_a_model_is_labelled_by_what_its_name_stands_for(name: str, label: str) -> None:
    encoders: dict[str, dict[str, object]] = {
        "vae": {"n_latent": 8, "beta": 1.0, "n_seeds": 3},
        "ae": {"n_latent": 8, "beta": 0},
    }
    found = model_label(name, encoders)
    assert found.startswith(label) and bool(found) == bool(label)
    assert name.endswith("_gene") == found.endswith(", and the isoform's own gene")
    assert ("synthetic samples" in found) == name.endswith("_augmented")
