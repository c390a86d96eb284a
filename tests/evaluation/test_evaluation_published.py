"""The published comparison comes out as published, and why; with equal heads it does not."""

from pathlib import Path

import pytest

from m1pipe import cross_validate, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.simulation.m1 import simulate_m1


@pytest.mark.slow
def test_the_published_heads_reproduce_the_published_ordering(tmp_path: Path) -> None:
    data = tmp_path / "data"
    simulate_m1(data, "small", 0)
    settings = EncoderConfig(
        model=ModelConfig(n_latent=32), training=TrainingConfig(epochs=20, seed=1)
    )
    train_encoder(data / "unlabelled.h5ad", settings).save(tmp_path / "vae")
    config = CrossvalConfig(
        recipe="published", models=("raw",), stratify="tissue", repeats=2, seed=1
    )
    result = cross_validate(
        data / "genes.h5ad",
        data / "isoforms.h5ad",
        encoders={"vae": [tmp_path / "vae"]},
        config=config,
    )
    loss = {row: values.mean() for row, values in result.losses.items()}
    assert loss["vae"] < 0.7 * loss["raw"]
    table = result.comparisons.set_index(["model_a", "model_b", "test"])
    headline = table.loc[("vae", "raw", "nadeau_bengio")]
    assert headline["ci_high"] < 0
    assert headline["p_holm"] < 0.05
    dead = [alarm for alarm in result.alarms if "dead" in alarm.text and "raw" in alarm.text]
    assert dead and dead[0].severity == "severe"
