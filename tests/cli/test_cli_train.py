"""`m1pipe train` from options to one line on stdout."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest

from m1pipe.cli.main import run
from m1pipe.console import log

Make = Callable[..., anndata.AnnData]
QUICK = ["--hidden", "8", "--epochs", "2"]


@pytest.fixture(scope="module")
def data(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "u.h5ad"
    expression(80, 20).write_h5ad(path)
    return str(path)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _train(*arguments: str) -> int:
    return run(["train", *arguments])


def test_one_line_on_stdout_and_one_an_epoch_on_stderr(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert _train(data, "--out", out, *QUICK, "--latent", "3") == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.out.startswith(f"{out}: 2 epochs (best ")
    for part in ("held-out R2", "(PCA ", "of 3 units active", " s\n"):
        assert part in captured.out
    assert sum(line.startswith("epoch ") for line in captured.err.splitlines()) == 2


def test_typed_options_outweigh_the_file_and_the_file_a_preset(data: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("n_latent = 5\nlr = 0.01\nhidden = [6]\n[training]\nseed = 9\n")
    arguments = [
        "--preset",
        "notebook",
        "--config",
        str(settings),
        "--latent",
        "4",
        "--epochs",
        "1",
    ]
    assert _train(data, "--out", str(tmp_path / "run"), *arguments) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["model"]["n_latent"] == 4
    assert stored["model"]["hidden"] == [6]
    assert stored["model"]["dropout"] == 0.2
    assert stored["training"]["lr"] == 0.01
    assert stored["training"]["seed"] == 9


def test_every_option_reaches_the_configuration(data: str, tmp_path: Path) -> None:
    arguments = {
        "--beta": "0.5", "--latent": "2", "--hidden": "8,4", "--decoder-hidden": "none",
        "--likelihood": "gaussian_unit", "--transform": "center", "--epochs": "1",
        "--batch-size": "16", "--lr": "0.002", "--memory": "1G", "--precision": "fp32",
        "--device": "cpu", "--seed": "7", "--validation": "0.2", "--group": "none",
        "--rows": "factor < 1", "--min-variance": "0.001", "--latent-scale": "unit",
    }  # fmt: skip
    typed = [text for pair in arguments.items() for text in pair]
    assert _train(data, "--out", str(tmp_path / "run"), *typed) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    model, training = stored["model"], stored["training"]
    assert (model["beta"], model["n_latent"], model["hidden"]) == (0.5, 2, [8, 4])
    assert (model["decoder_hidden"], model["min_variance"]) == ([], 0.001)
    assert (model["likelihood"], model["transform"]) == ("gaussian_unit", "center")
    assert model["latent_scale"] == "unit"
    assert (training["epochs"], training["batch_size"], training["lr"]) == (1, 16, 0.002)
    assert (training["memory"], training["precision"], training["device"]) == ("1G", "fp32", "cpu")
    assert (training["seed"], training["validation"]) == (7, 0.2)
    assert stored["selection"] == {
        "rows": "factor < 1",
        "group": "none",
        "validation_file": None,
        "aliases": None,
        "drop_samples_of": None,
        "thin_to": None,
        "normalize": None,
        "target_sum": None,
        "log2p1": False,
    }


def test_validation_takes_a_share_or_a_file(
    data: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = tmp_path / "v.h5ad"
    expression(10, 20, seed=4).write_h5ad(held_out)
    out = tmp_path / "run"
    assert _train(data, "--out", str(out), *QUICK, "--validation", str(held_out)) == 0
    stored = json.loads((out / "config.json").read_text())
    assert stored["selection"]["validation_file"] == str(held_out)
    assert _train(data, "--out", str(tmp_path / "b"), "--validation", "tenth") == 2
    assert "expected a share of the rows, such as 0.1, or a file" in capsys.readouterr().err


def test_resume_takes_the_settings_of_the_run(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert _train(data, "--out", out, *QUICK, "--seed", "3") == 0
    assert _train(data, "--out", out, "--resume") == 0
    assert "finished already" in capsys.readouterr().err
    assert _train(data, "--out", out, "--resume", "--lr", "0.5") == 1
    assert "training.lr: 0.001 there, 0.5 here" in capsys.readouterr().err
    assert _train(data, "--out", out, "--resume", "--force") == 2


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(data, "--out", str(tmp_path / "run"), "--dry-run") == 0
    text = capsys.readouterr().out
    for word in ("parameters", "memory", "disk", "steps"):
        assert word in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "a"], "expected widths such as 512"),
        (["--likelihood", "poisson"], "poisson"),
        (["--latent", "0"], "latent: expected a number"),
        (["--memory", "lots"], "memory: expected a size"),
    ],
)
def test_usage_errors_exit_with_2(
    data: str, tmp_path: Path, arguments: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _train(data, "--out", str(tmp_path / "run"), *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "tissue == 'Heart'"], "holds for none of the 80 samples"),
        (["--group", "batch"], "group: expected a column"),
        (["--device", "tpu"], "device: expected auto"),
        (["--likelihood", "bernoulli", "--transform", "center"], "expects levels as --transform"),
        (["--config", "nowhere.toml"], "nowhere.toml: expected a readable"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    data: str, tmp_path: Path, arguments: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _train(data, "--out", str(tmp_path / "run"), *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("m1pipe: error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_counts_are_refused_naming_the_way_out(
    expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = tmp_path / "c.h5ad"
    expression(30, 10, counts=True).write_h5ad(counts)
    assert _train(str(counts), "--out", str(tmp_path / "run")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "c.h5ad: expected logarithms for a Gaussian; found counts" in error
    assert "--log2p1" in error
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_kept(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert _train(data, "--out", out, *QUICK) == 0
    assert _train(data, "--out", out, *QUICK) == 0
    assert "finished already" in capsys.readouterr().err
    assert _train(data, "--out", out, *QUICK, "--seed", "9") == 1
    assert "training.seed: 0 there, 9 here: choose another name" in capsys.readouterr().err
    assert _train(data, "--out", out, *QUICK, "--force") == 0
