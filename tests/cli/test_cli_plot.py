"""`m1pipe plot`: every kind from files, bad input in one line, nothing left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest

from m1pipe.cli.main import run
from m1pipe.cli.plot import METHODS, MOST_LATENTS, MOST_SAMPLES, plot
from m1pipe.console import log
from m1pipe.figures import model, samples
from m1pipe.plots import embedding

Make = Callable[..., anndata.AnnData]
PAIR = ["--real", "data.h5ad", "--synthetic", "s.h5ad"]
KINDS = {
    "history": ["run", "run"],
    "architecture": ["run"],
    "latent": ["data.h5ad", "--run", "run", "--label", "tissue"],
    "interpolation": ["way.h5ad", "--n-genes", "5"],
    "augmentation": [*PAIR, "--method", "diffusion"],
    "genes": PAIR,
    "correlation": [*PAIR, "--max-genes", "10"],
    "mean-variance": [*PAIR, "--max-samples", "50"],
}


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.h5ad, counts.h5ad, a run, samples of it and a way through it."""
    path = tmp_path_factory.mktemp("plot")
    expression(120, 30).write_h5ad(path / "data.h5ad")
    expression(40, 30, counts=True).write_h5ad(path / "counts.h5ad")
    data, model = str(path / "data.h5ad"), str(path / "run")
    quick = ["--epochs", "2", "--latent", "3", "--hidden", "8"]
    assert run(["train", data, "--out", model, *quick]) == 0
    assert run(["generate", model, "-n", "60", "--out", str(path / "s.h5ad")]) == 0
    ends = ["--from", "tissue=Liver", "--to", "s0_3"]
    assert run(["interpolate", model, data, *ends, "--out", str(path / "way.h5ad")]) == 0
    log.handlers.clear()
    return path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    yield
    log.handlers.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_and_drawn_alike_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for out in outs:
        assert run(["-q", "plot", kind, *KINDS[kind], "--out", str(out)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{out}: ") and said.count(str(out)) == 1
    assert outs[0].read_bytes().startswith(b"<?xml")
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize(("ending", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_name_says_the_format(ending: str, head: bytes, tmp_path: Path) -> None:
    out = tmp_path / f"layers.{ending}"
    assert run(["plot", "architecture", "run", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(head)


def test_names_of_the_ends_come_with_the_way(tmp_path: Path) -> None:
    way = anndata.read_h5ad("way.h5ad")
    assert set(way.obs["from"]) == {"tissue=Liver"} and set(way.obs["to"]) == {"s0_3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["architecture", "run", "--out", "x.jpg"], "ends in .svg, .png or .pdf"),
        (["architecture", "nowhere", "--out", "x.svg"], "nowhere"),
        (["history", "nowhere", "--out", "x.svg"], "expected the folder of m1pipe train"),
        (["latent", "data.h5ad", "--out", "x.svg"], "expected latents"),
        (["latent", "data.h5ad", "--run", "run", "--label", "x", "--out", "x.svg"], "tissue"),
        (["interpolation", "data.h5ad", "--out", "x.svg"], "m1pipe interpolate"),
        (["interpolation", "way.h5ad", "--genes", "A", "--out", "x.svg"], "found 'A'"),
        (["genes", *PAIR, "--genes", "A,B", "--out", "x.svg"], "found 'A'"),
        (["augmentation", *PAIR[:3], "counts.h5ad", "--out", "x.svg"], "same in both files"),
        (["augmentation", *PAIR[:3], "none.h5ad", "--out", "x.svg"], "none.h5ad"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    assert run(["-q", "plot", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("m1pipe: error: ") and message in line
    assert sorted(folder.rglob("*")) == before


def test_a_figure_that_is_there_is_kept_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "layers.svg"
    out.write_text("mine")
    assert run(["plot", "architecture", "run", "--out", str(out)]) == 1
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(["plot", "architecture", "run", "--out", str(out), "--force"]) == 0
    assert out.read_text() != "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_help_with_an_example(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plot", kind, "--help"]) == 0
    assert f"m1pipe plot {kind}" in capsys.readouterr().out.split("Options:")[0]


def test_every_figure_is_described_by_a_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plot", "--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert "..." not in listed
    assert listed.count(".\n") == len(plot.commands)


def test_options_are_those_of_the_figures() -> None:
    assert tuple(embedding.METHODS) == METHODS
    assert (model.MOST_LATENTS, samples.MOST_SAMPLES) == (MOST_LATENTS, MOST_SAMPLES)
