from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import m1pipe
from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.encoder import Encoder, load_encoder, train_encoder
from m1pipe.encoder.conditional import codes_of, find_condition, fit_shift
from m1pipe.encoder.plan import plan_training
from m1pipe.errors import InputError, M1Warning
from m1pipe.models.vae import decode_mean
from m1pipe.settings import parse_bytes
from m1pipe.training.batches import ResidentFeed, StreamedFeed, make_feed


@pytest.fixture(scope="module")
def labelled(expression: Callable[..., anndata.AnnData]) -> anndata.AnnData:
    """Three kinds, each with its own mean; 'odd' is the second by name and the rarest."""
    data = expression(n=300)
    kinds = np.array(["apt", "zen", "apt", "zen", "odd"])[np.arange(300) % 5]
    offsets = 3 * np.random.default_rng(5).normal(size=(3, data.n_vars))
    data.X = data.X + offsets[np.unique(kinds, return_inverse=True)[1]].astype(np.float32)
    data.obs["kind"] = kinds
    data.uns = {"units": "log2_intensity"}  # samples sum to nothing in particular now
    return data


@pytest.fixture(scope="module")
def config(small_config: EncoderConfig) -> EncoderConfig:
    return replace(small_config, model=replace(small_config.model, condition="kind"))


@pytest.fixture(scope="module")
def conditional(labelled: anndata.AnnData, config: EncoderConfig) -> Encoder:
    return train_encoder(labelled, config)


def test_a_class_is_one_hot_and_never_one_number(conditional: Encoder) -> None:
    """VAExprs gave the class as one integer: the third class was twice the second."""
    condition, module = conditional.condition, conditional.module
    assert condition is not None
    assert condition.classes == ("apt", "odd", "zen")
    n_genes, n_latent = len(conditional.genes), conditional.n_latent
    assert module.decoder[0].in_features == n_latent + 3
    assert module.skip_encoder is not None
    assert module.skip_encoder.in_features == n_genes + 3
    levels = decode_mean(module, torch.zeros(3, n_latent), torch.arange(3)).numpy()
    as_numbers = levels[0] + 2 * (levels[1] - levels[0])
    assert np.abs(levels[2] - as_numbers).mean() > 0.3


def test_start_is_at_the_means_of_the_classes(
    labelled: anndata.AnnData, config: EncoderConfig
) -> None:
    """With a learning rate of next to nothing the decoder gives each class its mean."""
    still = replace(config, training=replace(config.training, lr=1e-12, epochs=1))
    encoder = train_encoder(labelled, still)
    condition = encoder.condition
    assert condition is not None
    used = labelled[list(encoder.samples)]
    levels = encoder.decode(np.zeros((3, encoder.n_latent)), np.arange(3))
    for k, name in enumerate(condition.classes):
        rows = used.X[(used.obs["kind"] == name).to_numpy()]
        assert len(rows) == condition.counts[k]
        off = levels[k] - rows.mean(axis=0)
        towards = used.X.mean(axis=0) - rows.mean(axis=0)
        np.testing.assert_allclose(off, towards / (len(rows) + 1), atol=0.02)
    share = np.array(condition.counts) / len(used)
    np.testing.assert_allclose(share @ levels, used.X.mean(axis=0), atol=2e-3)


def test_shift_is_that_of_the_class_means() -> None:
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50)
    found = fit_shift(np.array_split(X, 7), codes, 3)
    counts = np.bincount(codes)
    drawn = np.array(
        [(X[codes == k].mean(axis=0) - X.mean(axis=0)) * n / (n + 1) for k, n in enumerate(counts)]
    )
    np.testing.assert_allclose(found, drawn - counts @ drawn / 50, atol=1e-5)
    np.testing.assert_allclose(counts @ found, 0, atol=1e-4)


def test_latents_say_less_of_the_class(
    labelled: anndata.AnnData, conditional: Encoder, small_config: EncoderConfig
) -> None:
    def told(encoder: Encoder) -> float:
        scores = cross_val_score(
            LogisticRegression(max_iter=500), encoder.transform(labelled), labelled.obs["kind"]
        )
        return float(scores.mean())

    assert told(train_encoder(labelled, small_config)) > 0.7
    assert told(conditional) < 0.5


def test_it_goes_to_a_folder_and_back(
    labelled: anndata.AnnData, conditional: Encoder, tmp_path: Path
) -> None:
    conditional.save(tmp_path / "run")
    again = load_encoder(tmp_path / "run")
    assert again.digest() == conditional.digest()
    np.testing.assert_array_equal(again.transform(labelled), conditional.transform(labelled))
    np.testing.assert_array_equal(again.pca_scores(labelled), conditional.pca_scores(labelled))
    assert again.condition is not None
    assert again.condition.counts == conditional.condition.counts  # type: ignore[union-attr]
    with pytest.raises(InputError, match="expected a model that is not conditional"):
        m1pipe.VAE.load(tmp_path / "run")


def test_encoding_needs_the_column_and_known_classes(
    labelled: anndata.AnnData, conditional: Encoder
) -> None:
    bare = labelled.copy()
    del bare.obs["kind"]
    with pytest.raises(InputError, match="expected column 'kind' of obs"):
        conditional.transform(bare)
    odd = labelled.copy()
    odd.obs["kind"] = odd.obs["kind"].astype(str).replace("zen", "new")
    with pytest.raises(InputError, match=r"trained on \(apt, odd, zen\); found 'new'"):
        conditional.transform(odd)
    with pytest.raises(ValueError, match="needs the class"):
        conditional.encode_array(np.asarray(labelled.X[:2]))


@pytest.mark.parametrize("memory", ["40K", "4G"])
def test_classes_stay_with_their_rows(
    labelled: anndata.AnnData, config: EncoderConfig, memory: str
) -> None:
    plan = plan_training(labelled, config)
    scaler = fit_gene_transform("standardize", [np.asarray(labelled.X)])
    feed = make_feed(
        plan.source,
        plan.rows,
        scaler,
        batch_size=64,
        seed=0,
        memory_bytes=parse_bytes(memory),
        device=torch.device("cpu"),
        codes=plan.codes,
    )
    assert isinstance(feed, StreamedFeed if memory == "40K" else ResidentFeed)
    kinds = labelled.obs["kind"].to_numpy()
    seen = []
    for _, codes, rows in feed.epoch(1):
        assert np.array(["apt", "odd", "zen"])[codes].tolist() == kinds[rows].tolist()
        seen += rows.tolist()
    assert sorted(seen) == plan.rows.tolist()


def test_classes_that_cannot_be_are_refused() -> None:
    obs = pd.DataFrame({"kind": ["a", "b", None] + ["a"] * 20, "one": "x"})
    rows = np.arange(23)
    with pytest.raises(InputError, match="every sample; found none for 1 of 23"):
        find_condition(obs, "kind", rows, "data")
    with pytest.raises(InputError, match=r"2 to 200 classes .* found 1"):
        find_condition(obs, "one", rows, "data")
    with pytest.raises(InputError, match="found kind, one"):
        find_condition(obs, "tissue", rows, "data")
    with pytest.warns(M1Warning, match=r"resemble: b \(1\)"):
        found = find_condition(obs, "kind", np.delete(rows, 2), "data")
    assert found.counts == (21, 1)
    with pytest.raises(InputError, match="found 'c'"):
        codes_of(np.array(["a", "c"]), found.classes, "data")


def test_crossval_refuses_an_encoder_that_is_told_the_answer(
    labelled: anndata.AnnData, conditional: Encoder, config: EncoderConfig
) -> None:
    settings = CrossvalConfig(folds=2, models=("prior",), group="none")
    for encoder in (conditional, config):
        with pytest.raises(InputError, match="conditioned on kind, the label"):
            m1pipe.cross_validate(
                labelled, label="kind", encoders={"cvae": encoder}, config=settings
            )
    with pytest.raises(InputError, match="conditioned on kind, the stratum"):
        m1pipe.cross_validate(
            labelled,
            label="tissue",
            encoders={"cvae": conditional},
            config=replace(settings, stratify="kind"),
        )
    other = m1pipe.cross_validate(
        labelled,
        label="tissue",
        encoders={"frozen": conditional, "fold": config},
        config=settings,
    )
    assert {"frozen", "fold"} <= set(other.losses)
