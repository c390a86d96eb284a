"""A small trained encoder, shared by the tests that only look at it."""

from collections.abc import Callable

import anndata
import pytest

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.encoder import Encoder, train_encoder


@pytest.fixture(scope="session")
def small_config() -> EncoderConfig:
    return EncoderConfig(
        model=ModelConfig(n_latent=4, hidden=(16,)), training=TrainingConfig(epochs=4, seed=3)
    )


@pytest.fixture(scope="session")
def data(expression: Callable[..., anndata.AnnData]) -> anndata.AnnData:
    return expression()


@pytest.fixture(scope="session")
def encoder(data: anndata.AnnData, small_config: EncoderConfig) -> Encoder:
    return train_encoder(data, small_config)
