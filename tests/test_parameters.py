"""Python's help describes every parameter as the configurations do, and errors name parameters."""

import inspect
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m1pipe
from m1pipe import VAE, FeedForwardClassifier, FeedForwardRegressor, cross_validate, fit_predictor
from m1pipe.cli.main import run
from m1pipe.config import CrossvalConfig, HeadConfig, ModelConfig
from m1pipe.console import log
from m1pipe.errors import InputError, M1Warning, naming_options

PUBLIC: list[Callable[..., Any]] = [
    *(VAE, FeedForwardRegressor, FeedForwardClassifier),
    *(cross_validate, fit_predictor, m1pipe.load_encoder, m1pipe.train_encoder),
    *(m1pipe.load_predictor, m1pipe.open_matrix, m1pipe.compare, m1pipe.quality),
]


def described(thing: Callable[..., Any]) -> dict[str, str]:
    """Entries of the section Parameters, by name."""
    text = inspect.cleandoc(thing.__doc__ or "")
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|\Z)", text, re.S)
    assert section is not None, thing
    found = {}
    for entry in re.split(r"\n(?=\S)", section[1]):
        names, _, rest = entry.partition(" : ")
        found |= dict.fromkeys(names.split(", "), rest)
    return found


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_every_parameter_has_its_type_and_meaning(thing: Callable[..., Any]) -> None:
    found = described(thing)
    assert set(found) == set(inspect.signature(thing).parameters)
    for name, text in found.items():
        kind, _, meaning = text.partition("\n")
        assert kind.strip() and (meaning.strip() or "optional" in kind), name


def test_entries_are_those_of_the_configurations() -> None:
    found = described(VAE)
    assert found["n_latent"] == "int, default=32\n    Number of latent units."
    assert found["input_transform"].startswith("{'standardize', 'center', 'minmax',")
    assert f"default={ModelConfig().dropout!r}" in found["dropout"]
    found = described(cross_validate)
    assert found["folds"] == "int, default=5\n    Number of folds."
    assert found["epochs"].startswith(f"int, default={HeadConfig().epochs}\n")
    defaults = inspect.signature(cross_validate).parameters
    assert defaults["memory"].default == CrossvalConfig().memory


@pytest.fixture
def x() -> pd.DataFrame:
    X = np.random.default_rng(0).normal(size=(40, 6))
    return pd.DataFrame(X, [f"s{i}" for i in range(40)], [f"g{j}" for j in range(6)])


def test_settings_are_keywords_in_place_of_those_of_the_configuration(x: pd.DataFrame) -> None:
    y = x[["g0", "g1"]]
    config = CrossvalConfig(folds=2, repeats=2, head=HeadConfig(hidden=()))
    found = cross_validate(x, y, config=config, models=["ridge"], folds=3, group="none", lr=0.5)
    assert list(found.losses) == ["mean", "ridge"]
    assert found.folds.shape == (2, 40) and found.folds.max() == 2
    with pytest.raises(InputError, match="cross_validate: unknown setting 'fold'"):
        cross_validate(x, y, fold=3)


@pytest.mark.parametrize("kind", ["levels", "classes"])
def test_a_series_is_a_label(kind: str, x: pd.DataFrame) -> None:
    """As the column of the annotations, whatever the order of its samples."""
    y = x["g0"].rename("status")
    y = y if kind == "levels" else pd.Series(np.where(y > 0, "ill", "well"), y.index, name="status")
    found = cross_validate(x, y.iloc[::-1], models=["raw"], folds=2, hidden=(), group="none")
    assert "mse" in set(found.scores["metric"]) or kind == "classes"
    model = fit_predictor(x, y.iloc[5:], model="raw", hidden=(), group="none").predict(x)
    if kind == "classes":
        assert (model.obs["predicted_status"].astype(str) == y).mean() > 0.9
    else:
        assert np.corrcoef(model.X[:, 0], y)[0, 1] > 0.99
    with pytest.raises(InputError, match="y: expected a Series whose index has samples of x"):
        cross_validate(x, y.reset_index(drop=True))
    with pytest.raises(InputError, match="found both"):
        cross_validate(x, y, label="status")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X: VAE(n_latent=0).fit(X), "^VAE: n_latent: expected"),
        (lambda X: VAE(hidden="wide").fit(X), "^VAE: hidden: expected a list of int"),
        (
            lambda X: VAE(likelihood="bernoulli", input_transform="none", epochs=1).fit(X),
            "for the likelihood bernoulli",
        ),
        (
            lambda X: VAE(likelihood="bernoulli", input_transform="center").fit(X),
            "as input_transform minmax gives them; found input_transform center: leave it out",
        ),
        (
            lambda X: FeedForwardRegressor(epochs=0).fit(X, X[:, 0]),
            "^FeedForwardRegressor: epochs: expected",
        ),
        (lambda X: CrossvalConfig(draws=2), "draws: expected train_sizes beside it"),
        (lambda X: CrossvalConfig(tune_betas=(-1.0,)), "tune_betas: expected"),
    ],
)
def test_errors_name_parameters(make: Callable[[Any], Any], message: str, x: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=message):
        make(x.to_numpy())


def test_errors_of_commands_name_options_and_quoted_commands_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "draws: expected --train-sizes (m1pipe crossval --train-sizes 20); --lr 3"
    for error in (InputError(text), M1Warning(text)):
        assert str(error) == (
            "draws: expected train_sizes (m1pipe crossval --train-sizes 20); lr 3"
        )
        with naming_options():
            assert str(error) == text
    assert run(["crossval", "--x", "none.h5ad", "--out", "cv", "--draws", "2"]) == 2
    assert "draws: expected --train-sizes beside it" in capsys.readouterr().err
    log.handlers.clear()


def test_what_is_the_users_own_keeps_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^my-run: expected a trained model"):
        m1pipe.load_encoder("my-run")


@pytest.mark.parametrize(
    "text",
    [
        "x/--batch-size: expected a file",
        "found '--batch-size'",
        'found "--batch-size"',
        "a --thin-to.h5ad: expected a file",
        "m1pipe encode runs/x.h5ad --latent 3",
    ],
)
def test_what_only_looks_like_an_option_stays(text: str) -> None:
    assert str(InputError(text)) == text


def test_a_quoted_command_ends_with_its_sentence() -> None:
    text = "do as m1pipe train x.h5ad --lr 1 does. Leave --latent out."
    assert str(InputError(text)) == "do as m1pipe train x.h5ad --lr 1 does. Leave n_latent out."


def test_messages_tell_options_by_their_dashes() -> None:
    """What has a hyphen and no dashes before `: expected` is a name of the user's own."""
    bare = re.compile(
        r"(?<![\w./-])[a-z]+(?:-[a-z]+)+(?=: expected)|check_\w+\(\s*\"[a-z]+-[a-z-]+\""
    )
    sources = Path(m1pipe.__file__).parent.rglob("*.py")
    assert not [m[0] for path in sources for m in bare.finditer(path.read_text(encoding="utf-8"))]
    assert str(InputError("--batch-size: expected 1; or --ema")) == "batch_size: expected 1; or ema"


def test_verbose_says_how_training_goes_and_leaves_the_log_alone(
    x: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("handlers", []), ("level", logging.NOTSET), ("propagate", True)):
        monkeypatch.setattr(log, name, value)  # as where no command was run before
    before = (log.level, log.propagate, list(log.handlers))
    VAE(n_latent=2, hidden=4, epochs=2).fit(x)
    assert capsys.readouterr().err == ""
    VAE(n_latent=2, hidden=4, epochs=2, verbose=True).fit(x)
    assert "epoch" in capsys.readouterr().err
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_an_install_by_path_is_not_hidden_by_a_folder_of_the_name(tmp_path: Path) -> None:
    """Behind a folder without __init__.py on sys.path, as beside runs kept in m1pipe/."""
    (tmp_path / "m1pipe" / "runs").mkdir(parents=True)
    code = "import m1pipe; print(m1pipe.__version__)"
    path = os.pathsep.join([str(tmp_path), str(Path(m1pipe.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == m1pipe.__version__, found.stderr
