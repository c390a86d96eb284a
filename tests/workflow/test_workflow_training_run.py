"""`run_training`: a run folder that is complete, can be repeated, resumed and watched."""

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import load_encoder
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.io.reader import open_matrix
from m1pipe.settings import build, read_config_file
from m1pipe.workflow import progress as watch
from m1pipe.workflow.training_run import (
    dry_run_text,
    make_plan,
    run_training,
    select_rows,
    summary_line,
)

Make = Callable[..., anndata.AnnData]
TINY = {"n_latent": 3, "hidden": [8], "epochs": 3, "batch_size": 32, "seed": 1}


@pytest.fixture(scope="module")
def data(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "u.h5ad"
    expression(120, 30).write_h5ad(path)
    return path


def _config(**options: object) -> EncoderConfig:
    return build(EncoderConfig, {**TINY, **options})


def _weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def test_a_finished_run_holds_what_the_formats_promise(data: Path, tmp_path: Path) -> None:
    encoder = run_training(data, tmp_path / "run", _config(), log_steps=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json", "provenance.json", "status.json", "history.csv", "log.txt", "steps.csv",
        "model.safetensors", "model.json", "pca.safetensors", "samples.csv", "model.md",
    }  # fmt: skip
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["epoch"], status["epochs"]) == ("done", 3, 3)
    assert status["eta_seconds"] == 0
    steps = pd.read_csv(tmp_path / "run" / "steps.csv")
    assert len(steps) == 3 * 4
    first = steps[steps["epoch"] == 1]
    mean = (first["loss"] * first["rows"]).sum() / first["rows"].sum()
    assert mean == pytest.approx(history["train_loss"][0])
    with open_matrix(data) as matrix:
        np.testing.assert_array_equal(
            load_encoder(tmp_path / "run").transform(matrix), encoder.transform(matrix)
        )


def test_the_stored_config_is_complete_and_repeats_the_run(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path / "a", _config(hidden=None, rows='tissue == "Liver"'))
    stored = build(EncoderConfig, read_config_file(tmp_path / "a" / "config.json"))
    assert (stored.model.hidden, stored.model.decoder_hidden) == ((), (128,))
    run_training(data, tmp_path / "b", stored)
    assert _weights(tmp_path / "a") == _weights(tmp_path / "b")


def test_rows_and_groups_are_those_selected(data: Path, tmp_path: Path) -> None:
    encoder = run_training(data, tmp_path / "run", _config(rows='tissue == "Liver"'))
    obs = anndata.read_h5ad(data, backed="r").obs
    used = list(encoder.samples + encoder.validation_samples)
    assert set(used) == set(obs.index[obs["tissue"] == "Liver"])
    donors = obs["donor"].astype(str)
    held_out = set(donors[list(encoder.validation_samples)])
    assert held_out
    assert not held_out & set(donors[list(encoder.samples)])


def test_validation_may_be_a_file(data: Path, expression: Make, tmp_path: Path) -> None:
    expression(20, 30, seed=9).write_h5ad(tmp_path / "v.h5ad")
    config = _config(validation_file=str(tmp_path / "v.h5ad"))
    encoder = run_training(data, tmp_path / "run", config)
    assert len(encoder.samples) == 120
    assert encoder.validation_samples[0] == "s9_0"
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert set(provenance["inputs"]) == {"data", "validation"}


def test_stopped_by_a_signal_and_resumed_is_bit_identical(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(data, tmp_path / "whole", _config(), log_steps=True)
    on_step = watch.Watcher.on_step

    def with_signal(self: watch.Watcher, step: dict[str, float]) -> None:
        on_step(self, step)
        if (step["epoch"], step["step"]) == (2, 3):
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(watch.Watcher, "on_step", with_signal)
    with pytest.raises(StoppedBySignalError, match="SIGUSR1 in epoch 2, after step 3"):
        run_training(data, tmp_path / "cut", _config(), log_steps=True)
    monkeypatch.undo()
    status = json.loads((tmp_path / "cut" / "status.json").read_text())
    assert status["state"] == "stopped"
    assert "SIGUSR1" in status["message"]
    run_training(data, tmp_path / "cut", _config(), log_steps=True)
    assert _weights(tmp_path / "cut") == _weights(tmp_path / "whole")
    cut, whole = (pd.read_csv(tmp_path / r / "steps.csv") for r in ("cut", "whole"))
    pd.testing.assert_frame_equal(cut, whole)
    cut, whole = (pd.read_csv(tmp_path / r / "history.csv") for r in ("cut", "whole"))
    pd.testing.assert_frame_equal(cut.drop(columns="seconds"), whole.drop(columns="seconds"))


def test_steps_after_the_checkpoint_are_not_logged_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step = watch.Watcher.on_step

    def failing(self: watch.Watcher, step: dict[str, float]) -> None:
        on_step(self, step)
        if (step["epoch"], step["step"]) == (2, 3):
            raise ZeroDivisionError

    monkeypatch.setattr(watch.Watcher, "on_step", failing)
    with pytest.raises(ZeroDivisionError):
        run_training(data, tmp_path / "run", _config(), log_steps=True)
    monkeypatch.undo()
    with open(tmp_path / "run" / "steps.csv", "a") as file:
        file.write("2,4,2")
    run_training(data, tmp_path / "run", _config(), log_steps=True)
    steps = pd.read_csv(tmp_path / "run" / "steps.csv")
    assert list(zip(steps["epoch"], steps["step"], strict=True)) == [
        (epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)
    ]


def test_resuming_a_finished_run_says_so(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(data, tmp_path / "run", _config())
    before = _weights(tmp_path / "run")
    log.propagate = True
    with caplog.at_level(logging.INFO, logger="m1pipe"):
        encoder = run_training(data, tmp_path / "run", _config())
    assert "finished already" in caplog.text
    assert encoder.summary["epochs"] == 3
    assert _weights(tmp_path / "run") == before


def test_force_with_unusable_data_loses_nothing(
    data: Path, expression: Make, tmp_path: Path
) -> None:
    run_training(data, tmp_path / "run", _config())
    before = _weights(tmp_path / "run")
    expression(50, 30, counts=True).write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(InputError, match="found counts"):
        run_training(tmp_path / "counts.h5ad", tmp_path / "run", _config(), force=True)
    assert _weights(tmp_path / "run") == before


def test_one_log_line_an_epoch_off_a_terminal(data: Path, tmp_path: Path) -> None:
    log.setLevel(logging.INFO)
    run_training(data, tmp_path / "run", _config())
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert sum("epoch" in line and "train" in line for line in lines) == 3 + 1
    assert "108 training and 12 validation samples x 30 genes" in lines[0]


def test_queries_choose_rows(data: Path) -> None:
    with open_matrix(data) as matrix:
        obs = matrix.obs
        for query, mask in (
            ('tissue == "Liver"', obs["tissue"] == "Liver"),
            ("factor > 0.5 and donor != 'd1'", (obs["factor"] > 0.5) & (obs["donor"] != "d1")),
            ("tissue.notna()", obs["tissue"].notna()),
            ("tissue~^liv", obs["tissue"] == "Liver"),
            ("index.str.endswith('7')", obs.index.str.endswith("7")),
        ):
            np.testing.assert_array_equal(select_rows(matrix, query), np.flatnonzero(mask))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tisue == 'Liver'", r"on the columns tissue, donor, factor; found no column 'tisue'"),
        ("factor if donor else 1", "found an if at character 1"),
        ("tissue ==", "COLUMN~REGEX or a condition of .* invalid syntax"),
        ("factor", "true or false for each sample"),
        ("tissue == 'Heart'", "holds for none of the 120 samples"),
        ("factor > 'a'", "found text beside numbers of 'factor' at character 10"),
    ],
)
def test_queries_that_cannot_be_used_are_refused(data: Path, query: str, message: str) -> None:
    with open_matrix(data) as matrix, pytest.raises(InputError, match=message):
        select_rows(matrix, query)


def test_the_dry_run_and_the_summary_say_the_same_sizes(data: Path, tmp_path: Path) -> None:
    with open_matrix(data) as matrix:
        text = dry_run_text(make_plan(matrix, _config()))
    encoder = run_training(data, tmp_path / "run", _config())
    assert f"parameters  {encoder.summary['n_parameters']:,}" in text
    assert "steps       12" in text
    line = summary_line("run", encoder)
    assert line.startswith("run: 3 epochs (best ")
    assert f"PCA {encoder.summary['pca_r2']:.3f}" in line
    assert "of 3 units active" in line
