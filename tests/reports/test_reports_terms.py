"""Every guard is in the report and the summary, also where it found nothing."""

import ast
from pathlib import Path

import m1pipe
from m1pipe.reports.terms import GUARDS, guard_counts

EVALUATION = Path(m1pipe.__file__).parent / "evaluation"
OF_ANOTHER_PAGE = {"fitted_on"}


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
