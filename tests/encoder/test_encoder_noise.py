"""Noise after training is that of rows that were not trained on; rates follow the scales."""

import numpy as np
import pytest
import torch

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.data.batches import MemoryBatches
from m1pipe.encoder.train import recalibrate_noise
from m1pipe.models.vae import VAEModule, decode_mean, encode_mean
from m1pipe.training.batches import ResidentFeed
from m1pipe.training.optimizer import default_weight_decay, vae_groups

P, K = 12, 2


def _feed(x: torch.Tensor) -> ResidentFeed:
    return ResidentFeed((x,), np.arange(len(x)), MemoryBatches((x,), 64, 0, shuffle=False))


def _module(**settings: object) -> VAEModule:
    torch.manual_seed(0)
    chosen = {"n_latent": K, "hidden": (), "decoder_hidden": (8,), "beta": 0.0, **settings}
    return VAEModule(P, ModelConfig(**chosen))


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared"])
def test_noise_comes_to_that_of_many_validation_rows(likelihood: str) -> None:
    module = _module(likelihood=likelihood)
    torch.nn.init.zeros_(module.skip_decoder.weight)
    torch.nn.init.zeros_(module.skip_decoder.bias)
    sd = torch.linspace(0.3, 1.5, P)
    x = torch.randn(20_000, P) * sd
    before = decode_mean(module, encode_mean(module, x[:5]))
    recalibrate_noise(module, _feed(x), seed=0)
    found = module.likelihood.log_scale().exp()
    shared = sd.square().mean().sqrt()
    expected = sd if likelihood == "gaussian" else shared[None]
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0)
    assert torch.equal(decode_mean(module, encode_mean(module, x[:5])), before)


def test_few_validation_rows_move_the_genes_together() -> None:
    module = _module()
    torch.nn.init.zeros_(module.skip_decoder.weight)
    torch.nn.init.zeros_(module.skip_decoder.bias)
    recalibrate_noise(module, _feed(torch.randn(3, P) * 0.5), seed=0)
    found = module.likelihood.log_scale().exp()
    assert found.std() < 0.05 * found.mean() < 0.05


def test_a_law_without_noise_of_its_own_is_left_alone() -> None:
    module = _module(likelihood="gaussian_unit")
    recalibrate_noise(module, _feed(torch.randn(9, P)), seed=0)
    assert module.likelihood.log_scale().item() == 0.0


def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    module = _module(hidden=(5,))
    training = TrainingConfig(lr=0.01, weight_decay=2.0)
    groups = vae_groups(module, training)
    stepped = [id(p) for group in groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    for group in groups:
        decays = group["params"][0].ndim > 1
        assert group.get("weight_decay", 0.0) * group["lr"] == pytest.approx(0.02 * decays)


def test_a_linear_encoder_is_stepped_at_the_scale_of_its_start() -> None:
    module = _module()
    with torch.no_grad():
        module.skip_encoder.weight.fill_(0.03)
    groups = vae_groups(module, TrainingConfig(lr=0.01, weight_decay=0.0))
    rates = {id(g["params"][0]): g["lr"] for g in groups}
    assert rates[id(module.mu_head.weight)] == pytest.approx(3e-4)
    assert rates[id(module.output.weight)] == pytest.approx(0.1 / np.sqrt(8))


def test_models_without_a_pca_start_have_the_ordinary_groups_and_no_decay() -> None:
    plain = ModelConfig(linear_skip=False)
    groups = vae_groups(_module(linear_skip=False), TrainingConfig())
    assert [group.get("lr") for group in groups] == [None, None]
    assert [group.get("weight_decay") for group in groups] == [0.0, None]
    assert default_weight_decay(plain, TrainingConfig(), 100) == 0.0


@pytest.mark.parametrize(("n_samples", "share"), [(50, 0.1), (1500, 0.01), (10**6, 1e-4)])
@pytest.mark.parametrize("lr", [1e-3, 0.05])
def test_decay_of_a_step_depends_on_the_rows_alone(n_samples: int, share: float, lr: float) -> None:
    training = TrainingConfig(lr=lr)
    found = default_weight_decay(ModelConfig(), training, n_samples)
    assert found * lr == pytest.approx(share)
    fixed = TrainingConfig(weight_decay=0.5)
    assert default_weight_decay(ModelConfig(), fixed, n_samples) == 0.5
