"""`m1pipe cluster` writes clusters beside the latents, and says how good and stable they are."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import load_encoder, train_encoder
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in their seed, and data in two planted groups far apart."""
    folder = tmp_path_factory.mktemp("cluster")
    data = expression(160, 30)
    far = np.where(data.obs["tissue"] == "Liver", 15.0, 0.0)
    data.X[:, :15] += far[:, None].astype(np.float32)
    data.obs["tissue"] = data.obs["tissue"].astype(object)
    data.obs.iloc[:7, data.obs.columns.get_loc("tissue")] = None
    data.write_h5ad(folder / "x.h5ad")
    for seed in (1, 2):
        config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 3, "seed": seed})
        train_encoder(folder / "x.h5ad", config).save(folder / f"vae{seed}")
    return folder


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def test_clusters_of_two_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    command = ["cluster", "vae1,vae2", "x.h5ad", "--label", "tissue", "--out", "c.h5ad"]
    assert run(command) == 0
    line = capsys.readouterr().out
    found = anndata.read_h5ad("c.h5ad")
    known = found.uns["m1pipe"]
    np.testing.assert_array_equal(found.X, load_encoder("vae1").transform("x.h5ad"))
    clusters, tissue = found.obs["cluster"], found.obs["tissue"]
    labelled = tissue.notna().to_numpy()
    ari = adjusted_rand_score(tissue[labelled].astype(str), clusters[labelled].astype(str))
    assert known["ari"] == pytest.approx(ari)
    assert ari > 0.8
    assert known["n_labelled"] == 153
    assert known["stability"].shape == (2, 2)
    assert known["ari_by_source"][0] == known["ari"]
    assert set(clusters) == {"1", "2"}
    assert "160 samples in 2 clusters (k-means, k by silhouette)" in line
    assert f"ARI {ari:.2f}, NMI {known['nmi']:.2f} with tissue of 153 labelled" in line
    assert f"over 2 encoders ARI {known['stability'][0, 1]:.2f}" in line
    assert run(command) == 1


def test_latents_give_the_clusters_of_their_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for seed in (1, 2):
        assert run(["encode", f"vae{seed}", "x.h5ad", "--out", f"z{seed}.h5ad"]) == 0
    assert (
        run(
            [
                "cluster",
                "vae1,vae2",
                "x.h5ad",
                "--k",
                "3",
                "--distance",
                "latent",
                "--out",
                "run.h5ad",
            ]
        )
        == 0
    )
    assert run(["cluster", "z1.h5ad,z2.h5ad", "--k", "3", "--out", "file.h5ad"]) == 0
    one, two = anndata.read_h5ad("run.h5ad"), anndata.read_h5ad("file.h5ad")
    assert "distance latent" in two.uns["m1pipe"]["settings"]
    assert one.obs["cluster"].tolist() == two.obs["cluster"].tolist()
    np.testing.assert_array_equal(one.uns["m1pipe"]["stability"], two.uns["m1pipe"]["stability"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vae1"], "a run needs the samples to cluster"),
        (["x.h5ad"], "expected latents, as m1pipe encode writes them; found log2_normalized1"),
        (["vae1", "x.h5ad", "--label", "organ"], "found 'organ'"),
        (["vae1", "x.h5ad", "--k", "500"], "more than 500 samples; found 160"),
    ],
)
def test_what_cannot_be_clustered_is_refused(
    folder: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert run(["cluster", *arguments, "--out", "no.h5ad"]) == 1
    assert said in capsys.readouterr().err
    assert not Path("no.h5ad").exists()


def test_other_samples_and_a_column_in_the_way_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run(["encode", "vae1", "x.h5ad", "--out", "whole.h5ad"]) == 0
    whole = anndata.read_h5ad("whole.h5ad")
    whole[::-1].copy().write_h5ad("turned.h5ad")
    assert run(["cluster", "whole.h5ad,turned.h5ad", "--out", "no.h5ad"]) == 1
    assert "expected the samples of whole.h5ad in their order" in capsys.readouterr().err
    whole.obs["cluster"] = "1"
    whole.write_h5ad("named.h5ad")
    assert run(["cluster", "named.h5ad", "--out", "no.h5ad"]) == 1
    assert "expected no column 'cluster'" in capsys.readouterr().err
