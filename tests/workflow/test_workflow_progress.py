"""Lines of the log while an encoder is trained, where no bar is drawn."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from m1pipe.config import EncoderConfig, TrainingConfig
from m1pipe.workflow.progress import Watcher


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.5, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]), (4.0, list(range(1, 26)))]
)
def test_a_line_an_epoch_in_runs_of_minutes_and_a_tenth_of_them_in_runs_of_seconds(
    seconds: float, said: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    plan = SimpleNamespace(config=EncoderConfig(training=TrainingConfig(epochs=25)), n_steps=1)
    folder = SimpleNamespace(write_history=lambda rows: None, update=lambda **fields: None)
    with (
        caplog.at_level("INFO", logger="m1pipe"),
        Watcher(cast("Any", folder), cast("Any", plan)) as watcher,
    ):
        for epoch in range(1, 26):
            row = {"epoch": epoch, "train_loss": 1.0, "lr": 1e-3, "seconds": seconds}
            watcher.on_epoch(row)
    assert [line.split("  ")[0] for line in caplog.messages] == [f"epoch {e}/25" for e in said]
