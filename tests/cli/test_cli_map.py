"""`m1pipe map` lays samples out, and places new ones on the map of old ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import load_encoder, train_encoder
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders, old and new samples in two groups, and a map of the old ones."""
    folder = tmp_path_factory.mktemp("map")
    data = expression(160, 30)
    far = np.where(data.obs["tissue"] == "Liver", 15.0, 0.0)
    data.X[:, :15] += far[:, None].astype(np.float32)
    data[:120].copy().write_h5ad(folder / "old.h5ad")
    data[120:].copy().write_h5ad(folder / "new.h5ad")
    for seed in (1, 2):
        config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 3, "seed": seed})
        train_encoder(folder / "old.h5ad", config).save(folder / f"vae{seed}")
    files = [str(folder / name) for name in ("vae1", "old.h5ad")]
    assert run(["map", *files, "--method", "mds", "--out", str(folder / "atlas.h5ad")]) == 0
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    yield
    log.handlers.clear()


def test_a_map_is_latents_with_places() -> None:
    atlas = anndata.read_h5ad("atlas.h5ad")
    np.testing.assert_array_equal(atlas.X, load_encoder("vae1").transform("old.h5ad"))
    assert list(atlas.obsm) == ["X_mds"] and atlas.obsm["X_mds"].shape == (120, 2)
    assert atlas.uns["m1pipe"]["encoder"] == load_encoder("vae1").digest()


def test_new_samples_come_to_their_group(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["map", "vae1", "new.h5ad", "--onto", "atlas.h5ad", "--out", "placed.h5ad"]
    assert run([*command, "--force"]) == 0
    atlas, placed = anndata.read_h5ad("atlas.h5ad"), anndata.read_h5ad("placed.h5ad")
    beyond = placed.obs["map_beyond"].to_numpy(dtype=bool)
    line = capsys.readouterr().out
    assert "40 samples placed among 120 of atlas.h5ad" in line and f"{beyond.mean():.1%}" in line
    liver = (atlas.obs["tissue"] == "Liver").to_numpy()
    centres = [atlas.obsm["X_mds"][mine].mean(axis=0) for mine in (liver, ~liver)]
    gaps = np.linalg.norm(placed.obsm["X_mds"][:, None] - np.array(centres), axis=2)
    assert ((gaps[:, 0] < gaps[:, 1]) == (placed.obs["tissue"] == "Liver").to_numpy()).all()


def test_samples_of_the_map_stay_near_their_places() -> None:
    command = ["map", "vae1", "old.h5ad", "--onto", "atlas.h5ad", "--neighbors", "1"]
    assert run([*command, "--out", "again.h5ad"]) == 0
    atlas, again = anndata.read_h5ad("atlas.h5ad"), anndata.read_h5ad("again.h5ad")
    np.testing.assert_allclose(again.obsm["X_mds"], atlas.obsm["X_mds"], rtol=1e-6)


def test_encoded_files_do_as_well_as_runs() -> None:
    assert run(["encode", "vae1", "new.h5ad", "--out", "z.h5ad"]) == 0
    assert run(["map", "z.h5ad", "--onto", "atlas.h5ad", "--out", "of_z.h5ad"]) == 0
    assert run(["map", "vae1", "new.h5ad", "--onto", "atlas.h5ad", "--out", "of_run.h5ad"]) == 0
    one, other = (anndata.read_h5ad(name).obsm["X_mds"] for name in ("of_z.h5ad", "of_run.h5ad"))
    np.testing.assert_array_equal(one, other)


def test_a_map_is_drawn() -> None:
    assert run(["map", "vae1", "new.h5ad", "--onto", "atlas.h5ad", "--out", "drawn.h5ad"]) == 0
    command = ["plot", "map", "drawn.h5ad", "--onto", "atlas.h5ad", "--label", "tissue"]
    assert run([*command, "--out", "map.svg"]) == 0
    text = Path("map.svg").read_text(encoding="utf-8")
    assert text.lstrip().startswith("<?xml") and "</svg>" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vae2", "new.h5ad", "--onto", "atlas.h5ad"], "the encoder that made those of atlas.h5ad"),
        (["vae1"], "a run needs the samples to map"),
        (["vae1", "new.h5ad", "--onto", "old.h5ad"], "expected latents"),
        (["vae1", "new.h5ad", "--onto", "atlas.h5ad", "--key", "X_umap"], "found X_mds"),
        (["vae1", "new.h5ad", "--onto", "atlas.h5ad", "--neighbors", "120"], "more than 120 old"),
    ],
)
def test_what_cannot_be_placed_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["map", *arguments, "--out", "x_out.h5ad"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and not Path("x_out.h5ad").exists()
