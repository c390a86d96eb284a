"""Bars are drawn on a terminal only, and only where something takes its time."""

import numpy as np
import pytest

from m1pipe import console

BLOCKS = [(0, 40, "a"), (40, 80, "b"), (80, 100, "c")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "shows_bars", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_rows_that_take_their_time_show_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    assert list(console.over_rows(BLOCKS, 100)) == BLOCKS
    drawn = capsys.readouterr().err
    assert "samples:   0%" in drawn and "0/100" in drawn and "samples/s" in drawn


@pytest.mark.usefixtures("terminal")
def test_what_is_done_at_once_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.over_rows(BLOCKS, 100)) == BLOCKS
    assert "samples" not in capsys.readouterr().err


def test_no_bar_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    assert list(console.over_rows(BLOCKS, 100)) == BLOCKS
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("terminal")
def test_what_goes_wrong_on_the_way_is_not_swallowed() -> None:
    def broken() -> object:
        yield 0, 40, np.ones(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(console.over_rows(broken(), 100))
