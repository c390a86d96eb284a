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
    update = console.Bar.update
    monkeypatch.setattr(console.Bar, "update", lambda bar, n: (update(bar, n), bar.refresh()))
    assert list(console.over_rows(BLOCKS, 100)) == BLOCKS
    drawn = capsys.readouterr().err
    assert "samples:  40%" in drawn and "40/100" in drawn and "samples/s" in drawn


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


@pytest.mark.usefixtures("terminal")
def test_a_log_line_stands_above_the_bar_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.set_verbosity(0, quiet=False)
    with console.progress(total=4, label="training") as bar:
        console.log.info("300 samples")
        bar.update(2)
        bar.refresh()
        console.log.info("resumed")
        console.log.info("300 samples")
    shown = capsys.readouterr().err
    assert "0/4" not in shown, "a bar at 0 % says nothing"
    assert "2/4" in shown
    assert shown.count("300 samples\n") == 1
    assert shown.partition("resumed\n")[0].endswith("\r"), "the bar was cleared first"


def test_elsewhere_items_that_take_minutes_are_counted_in_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="m1pipe"):
        assert list(console.progress("abc", total=3, label="trials")) == list("abc")
        assert caplog.messages == []
        monkeypatch.setattr(console, "MINUTE", 0.0)
        list(console.progress("abc", total=3, label="trials"))
    assert caplog.messages == [f"trials: {n} of 3 done" for n in (1, 2, 3)]


def test_long_lines_are_folded_between_words_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "/a/folder/" + "x" * 150
    text = f"warning: {path}: " + "so many words " * 20 + "\nepoch 1  loss 2"
    console.set_verbosity(0, quiet=False)
    console.log.warning("%s", text)
    console.log.handlers.clear()
    said = capsys.readouterr().err
    assert said.split() == text.split()
    lines = said.splitlines()
    assert [path in line for line in lines].count(True) == 1
    assert all(len(line) <= console.LINE for line in lines if path not in line)
    assert lines[-1] == "epoch 1  loss 2" and lines[-2].startswith("  ")
