"""What TensorBoard and MLflow keep of a training, read back by themselves, is history.csv."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.console import log
from m1pipe.errors import StoppedBySignalError
from m1pipe.workflow.trackers import TENSORBOARD, tracked

Make = Callable[..., anndata.AnnData]
ROWS: list[dict[str, Any]] = [{"epoch": e, "train_loss": 1 / e, "lr": 0.1} for e in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with a store of files."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = pytest.importorskip("mlflow", reason="mlflow is not installed")
    found.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield found
    found.set_tracking_uri(None)


def _train(make: Make, folder: Path, *more: str) -> pd.DataFrame:
    """Train in folder/vae; its history by epoch."""
    make(80, 12).write_h5ad(folder / "u.h5ad")
    quick = ["--epochs", "3", "--latent", "2", "--hidden", "4"]
    data, out = str(folder / "u.h5ad"), str(folder / "vae")
    assert run(["-q", "train", data, "--out", out, *quick, *more]) == 0
    return pd.read_csv(folder / "vae/history.csv", index_col="epoch")


def _scalars(folder: Path) -> pd.DataFrame:
    """What TensorBoard shows."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return pd.DataFrame(
        {
            name: {event.step: event.value for event in events.Scalars(name)}
            for name in events.Tags()["scalars"]
        }
    )


def _metrics(mlflow: Any, folder: Path) -> tuple[Any, pd.DataFrame]:
    """The one run of MLflow, and its metrics by step."""
    client = mlflow.MlflowClient()
    (found,) = client.search_runs(["0"])
    history = {
        name: {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }
    return found, pd.DataFrame(history)


def test_tensorboard_has_the_history(expression: Make, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    history = _train(expression, tmp_path, "--log-to", "tensorboard")
    found = _scalars(tmp_path / "vae" / TENSORBOARD)
    assert len(found) == 3
    # Events hold float32.
    pd.testing.assert_frame_equal(
        found, history, check_like=True, check_names=False, check_index_type=False, rtol=1e-6
    )
    again = ["train", str(tmp_path / "u.h5ad"), "--out", str(tmp_path / "vae"), "--force"]
    assert run(["-q", *again, "--epochs", "1"]) == 0
    assert not (tmp_path / "vae" / TENSORBOARD).exists()


def test_mlflow_has_history_and_settings(expression: Make, tmp_path: Path, mlflow: Any) -> None:
    history = _train(expression, tmp_path, "--log-to", "mlflow")
    found, metrics = _metrics(mlflow, tmp_path)
    pd.testing.assert_frame_equal(
        metrics, history, check_like=True, check_names=False, check_index_type=False, rtol=1e-15
    )
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "vae"
    assert found.data.params["model.n_latent"] == "2"
    assert found.data.params["training.epochs"] == "3"


def test_epochs_that_are_done_again_are_shown_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with tracked("tensorboard", tmp_path, {}, 0) as tell:
        for row in ROWS:
            tell(row | {"train_loss": -1.0})
    with tracked("tensorboard", tmp_path, {}, 1) as tell:
        for row in ROWS[1:3]:
            tell(row)
    found = _scalars(tmp_path / TENSORBOARD)["train_loss"]
    assert found.index.tolist() == [1, 2, 3]
    np.testing.assert_allclose(found, [-1, 1 / 2, 1 / 3], rtol=1e-6)


def test_a_stopped_training_goes_on_in_its_run_of_mlflow(tmp_path: Path, mlflow: Any) -> None:
    settings = {"model": {"beta": 1.0}}
    with (
        pytest.raises(StoppedBySignalError, match="SIGTERM"),
        tracked("mlflow", tmp_path, settings, 0) as tell,
    ):
        tell(ROWS[0])
        raise StoppedBySignalError("SIGTERM")
    assert _metrics(mlflow, tmp_path)[0].info.status == "KILLED"
    with tracked("mlflow", tmp_path, settings, 1) as tell:
        tell(ROWS[1])
    found, metrics = _metrics(mlflow, tmp_path)
    assert found.info.status == "FINISHED"
    assert metrics["train_loss"].to_dict() == {1: 1.0, 2: 0.5}


def test_a_server_that_fails_does_not_end_the_training(
    tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def gone(*values: Any, **options: Any) -> None:
        asked.append(values)
        raise mlflow.exceptions.MlflowException("no route to host. More.\nEven more.")

    with tracked("mlflow", tmp_path, {}, 0) as tell:
        with monkeypatch.context() as patch:
            patch.setattr(mlflow, "log_metrics", gone)
            for row in ROWS:
                tell(row)
    mlflow.end_run()
    assert len(asked) == 1
    assert caplog.messages == ["warning: MLflow is told nothing more: no route to host"]


def test_an_mlflow_that_cannot_be_written_to_is_refused_before_training(
    expression: Make, tmp_path: Path, mlflow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    expression(40, 6).write_h5ad(tmp_path / "u.h5ad")
    mlflow.set_tracking_uri("gopher://nowhere")
    command = ["train", str(tmp_path / "u.h5ad"), "--out", str(tmp_path / "vae")]
    assert run([*command, "--log-to", "mlflow"]) == 1
    err = capsys.readouterr().err
    assert "--log-to: expected an MLflow to write to; found none: " in err
    assert "set MLFLOW_TRACKING_URI" in err
    assert not (tmp_path / "vae").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    command = ["train", str(tmp_path / "u.h5ad"), "--out", str(tmp_path / "vae")]
    assert run([*command, "--log-to", name]) == 1
    assert f"pip install 'm1pipe[{name}]'" in capsys.readouterr().err
