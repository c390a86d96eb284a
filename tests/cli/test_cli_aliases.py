"""An alias table given to every command that matches genes, and what was missing all the same."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.data.simulation.m1 import simulate_m1
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality_data import load_quality_data

LIGHT = ["--epochs", "1", "--latent", "2", "--hidden", "8"]


def _run(*arguments: object) -> int:
    return run(["-q", *map(str, arguments)])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; labelled genes under names of their own, with the table that knows them, two less."""
    folder = tmp_path_factory.mktemp("aliases")
    simulate_m1(folder / "data", "tiny", seed=1)
    assert _run("train", folder / "data/unlabelled.h5ad", "--out", folder / "run", *LIGHT) == 0
    for name in ("genes", "unlabelled"):
        data = anndata.read_h5ad(folder / f"data/{name}.h5ad")
        data.var = pd.DataFrame(index=[f"LOC{i}" for i in range(data.n_vars)])
        data.obs_names = [f"{sample}x" for sample in data.obs_names]
        data.write_h5ad(folder / f"{name}.h5ad")
        if name == "genes":
            data[:, 2:].write_h5ad(folder / "part.h5ad")
    genes = anndata.read_h5ad(folder / "data/genes.h5ad", backed="r").var_names
    rows = "".join(f"LOC{i}\t{gene}\n" for i, gene in enumerate(genes))
    (folder / "aliases.tsv").write_text(f"alias\tname\n{rows}")
    return folder


def test_without_the_table_nothing_matches(job: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "z.h5ad"
    assert _run("encode", job / "run", job / "genes.h5ad", "--out", out) == 1
    assert "found 0 (0.0%), missing are" in (line := capsys.readouterr().err)
    assert "name them by --aliases" in line and not out.exists()


def test_encode(job: Path, tmp_path: Path) -> None:
    table = ["--aliases", job / "aliases.tsv"]
    plain, aliased, part = (tmp_path / f"{name}.h5ad" for name in ("plain", "aliased", "part"))
    assert _run("encode", job / "run", job / "data/genes.h5ad", "--out", plain) == 0
    assert _run("encode", job / "run", job / "genes.h5ad", "--out", aliased, *table) == 0
    assert np.array_equal(anndata.read_h5ad(plain).X, anndata.read_h5ad(aliased).X)
    assert "missing_genes" not in anndata.read_h5ad(aliased).uns["m1pipe"]
    assert _run("encode", job / "run", job / "part.h5ad", "--out", part, *table) == 0
    names = anndata.read_h5ad(job / "data/genes.h5ad").var_names[:2].tolist()
    assert anndata.read_h5ad(part).uns["m1pipe"]["missing_genes"].tolist() == names


def test_fit_and_predict(job: Path, tmp_path: Path) -> None:
    table = ["--aliases", job / "aliases.tsv"]
    model, out = tmp_path / "model", tmp_path / "p.h5ad"
    arguments = ["--label", "tissue", "--encoder", job / "run", "--head-epochs", 2]
    assert _run("fit", "--x", job / "part.h5ad", *arguments, "--out", model, *table) == 0
    missing = pd.read_csv(model / "missing_genes.csv")
    names = anndata.read_h5ad(job / "data/genes.h5ad").var_names[:2].tolist()
    assert missing.to_dict("list") == {"model": ["encoder"] * 2, "gene": names}
    assert "aliases" in (model / "provenance.json").read_text()
    assert _run("predict", model, job / "part.h5ad", "--out", out, *table) == 0
    assert anndata.read_h5ad(out).uns["m1pipe"]["missing_genes"].tolist() == names
    assert _run("predict", model, job / "part.h5ad", "--out", tmp_path / "no.h5ad") == 1


def test_crossval(job: Path, tmp_path: Path) -> None:
    arguments = ["--x", job / "part.h5ad", "--label", "tissue", "--models", "prior", "--folds", 2]
    arguments += ["--encoder", f"vae={job / 'run'}", "--head-epochs", 1, "--out", tmp_path / "cv"]
    assert _run("crossval", *arguments) == 1 and not (tmp_path / "cv").exists()
    assert _run("crossval", *arguments, "--aliases", job / "aliases.tsv") == 0
    missing = pd.read_csv(tmp_path / "cv/missing_genes.csv")
    assert missing["model"].tolist() == [str(job / "run")] * 2
    assert (
        missing["gene"].tolist()
        == anndata.read_h5ad(job / "data/genes.h5ad").var_names[:2].tolist()
    )


def test_train_with_a_validation_file(job: Path, tmp_path: Path, capsys: Any) -> None:
    data, table = job / "data/unlabelled.h5ad", ["--aliases", job / "aliases.tsv"]
    arguments = ["train", data, "--out", tmp_path / "run", *LIGHT]
    validation = ["--validation", job / "unlabelled.h5ad"]
    assert _run(*arguments, *validation) == 1
    assert "expected all of the encoder's 60 genes" in capsys.readouterr().err
    assert _run(*arguments, *validation, *table) == 0
    assert '"aliases"' in (tmp_path / "run/provenance.json").read_text()
    assert _run("train", data, "--out", tmp_path / "other", *LIGHT, *table) == 1
    assert (
        "aliases: they serve the genes of a --validation or --thin-to FILE"
        in capsys.readouterr().err
    )


def test_inspect(job: Path, capsys: Any) -> None:
    against = ["--against", job / "data/unlabelled.h5ad", "--aliases", job / "aliases.tsv"]
    assert _run("inspect", job / "part.h5ad", *against) == 0
    assert "58 of 60 (96.7%) are here: 58 by alias table" in capsys.readouterr().out


def test_quality_matches_by_the_table(job: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(job / "data/unlabelled.h5ad")
    aliased = anndata.read_h5ad(job / "unlabelled.h5ad")
    sets = {"real": data[:100], "synthetic": aliased[100:200], "holdout": data[200:]}
    for role, samples in sets.items():
        samples.copy().write_h5ad(tmp_path / f"{role}.h5ad")
    config = QualityConfig(aliases=str(job / "aliases.tsv"), group="none")
    material = load_quality_data(*(tmp_path / f"{role}.h5ad" for role in sets), config)
    assert material.genes.tolist() == data.var_names.tolist()
    assert material.facts["missing_genes"] == {}
    assert np.array_equal(material.synthetic, aliased.X[100:200])


@pytest.mark.filterwarnings("ignore::m1pipe.errors.M1Warning")
def test_quality_lists_what_a_set_lacks(job: Path, tmp_path: Path) -> None:
    whole, part = job / "data/genes.h5ad", job / "part.h5ad"
    arguments = ["--real", whole, "--synthetic", whole, "--holdout", part, "--label", "tissue"]
    arguments += ["--aliases", job / "aliases.tsv", "--resamples", 2, "--group", "none"]
    assert _run("quality", *arguments, "--out", tmp_path / "q") == 0
    missing = pd.read_csv(tmp_path / "q/missing_genes.csv")
    names = anndata.read_h5ad(whole).var_names[:2].tolist()
    assert missing.to_dict("list") == {"set": ["holdout"] * 2, "gene": names}


@pytest.mark.parametrize("command", ["reconstruct", "impute", "score"])
def test_commands_through_a_model(job: Path, tmp_path: Path, command: str) -> None:
    plain, aliased = tmp_path / "plain.h5ad", tmp_path / "aliased.h5ad"
    table = ["--aliases", job / "aliases.tsv"]
    assert _run(command, job / "run", job / "data/genes.h5ad", "--out", plain) == 0
    assert _run(command, job / "run", job / "genes.h5ad", "--out", aliased, *table) == 0
    assert np.array_equal(anndata.read_h5ad(plain).X, anndata.read_h5ad(aliased).X)
    part, names = tmp_path / "part.h5ad", anndata.read_h5ad(job / "data/genes.h5ad").var_names[:2]
    assert _run(command, job / "run", job / "part.h5ad", "--out", part, *table) == 0
    assert list(anndata.read_h5ad(part).uns["m1pipe"]["missing_genes"]) == list(names)


def test_interpolate(job: Path, tmp_path: Path) -> None:
    first, last = anndata.read_h5ad(job / "genes.h5ad", backed="r").obs_names[[0, 1]]
    arguments = ["interpolate", job / "run", job / "genes.h5ad", "--from", first, "--to", last]
    assert _run(*arguments, "--out", tmp_path / "no.h5ad") == 1
    table = ["--aliases", job / "aliases.tsv"]
    assert _run(*arguments, "--out", tmp_path / "way.h5ad", *table) == 0
    arguments[2] = job / "part.h5ad"
    assert _run(*arguments, "--out", tmp_path / "part.h5ad", *table) == 0
    assert len(anndata.read_h5ad(tmp_path / "part.h5ad").uns["m1pipe"]["missing_genes"]) == 2
