import doctest
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import KEPT

from m1pipe.reports import page, terms


@pytest.mark.parametrize("module", [page, terms])
def test_examples(module):
    done = doctest.testmod(module)
    assert done.attempted > 0
    assert done.failed == 0


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 6))
def test_a_number_is_never_blank_and_says_so_when_it_is_none(value, decimals):
    for text in (page.number(value), page.number(value, decimals)):
        assert text
        usable = value == value and abs(value) != float("inf")
        assert (text == page.ABSENT) == (not usable)
        if usable and "e" not in text:
            float(text.replace(",", ""))


@settings(deadline=None)
@given(st.floats(1e-5, 1e5), st.floats(-1e6, 1e6))
def test_decimals_show_two_digits_of_the_spread(spread, value):
    digits = page.decimals_for(spread)
    shown = float(page.number(value, digits).replace(",", ""))
    assert abs(shown - value) <= max(0.5 * 10**-digits, 1e-9) * 1.000001
    if 1e-4 < spread < 10:
        assert 0.1 * 10**-digits <= spread / 10 < 10 * 10**-digits


@pytest.mark.parametrize("p", [0.0, 1e-300, 0.0009999])
def test_small_p_values_are_bounded_not_rounded_to_zero(p):
    assert page.p_value(p) == "< 0.001"


def test_minus_zero_is_zero():
    assert page.number(-0.0001, 2) == "0.00"


HOUSE_WORDS = {"row", "rows", "rival", "rivals", "ladder", "yardstick", "law", "fares", "told"}


@pytest.mark.parametrize("name", ["crossval", "quality"])
def test_pages_speak_the_words_of_the_field(name: str) -> None:
    words = set(re.findall(r"[a-z]+", (KEPT / f"{name}.txt").read_text(encoding="utf-8").lower()))
    assert {"samples", "models" if name == "crossval" else "genes"} <= words
    assert not HOUSE_WORDS & words
