"""The loop: against closed forms, PCA, and torch's own schedules."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import nn
from torch.optim.swa_utils import AveragedModel

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.data.batches import MemoryBatches
from m1pipe.errors import InputError, M1Warning
from m1pipe.models.vae import VAEModule, decode_mean, encode_mean, vae_objective
from m1pipe.training import loop as loop_module
from m1pipe.training.batches import ResidentFeed
from m1pipe.training.history import History, Observer, epoch_line, explain_rows
from m1pipe.training.loop import Loop, fit
from m1pipe.training.optimizer import clip_gradient, moving_values, start_average, update_average


def _feed(*tensors: torch.Tensor, batch_size: int = 16, shuffle: bool = True) -> ResidentFeed:
    batches = MemoryBatches(tensors, batch_size, 0, shuffle=shuffle)
    return ResidentFeed(tensors, np.arange(len(tensors[0])), batches)


def _squares(module: nn.Module, batch, beta: float, generator: torch.Generator):
    error = (module(batch[0]) - batch[1]).square().sum(1)
    return {"loss": error, "half": error / 2}


def _data(n: int = 50, p: int = 6) -> torch.Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(1))


def _linear(p: int = 6) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(p, 2)


def _vae(**settings: object) -> VAEModule:
    torch.manual_seed(0)
    return VAEModule(6, ModelConfig(**{"n_latent": 2, "hidden": (8,), **settings}))


def test_a_linear_autoencoder_at_beta_zero_spans_the_pca_subspace() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator) * torch.tensor([6.0, 5.0, 4.0])
    x = x @ torch.randn(3, 20, generator=generator) + torch.randn(300, 20, generator=generator)
    x -= x.mean(0)
    config = ModelConfig(
        n_latent=3,
        hidden=(),
        linear_skip=False,
        batch_norm=False,
        beta=0.0,
        likelihood="gaussian_unit",
    )
    torch.manual_seed(1)
    module = VAEModule(20, config)
    training = TrainingConfig(
        epochs=150, lr=2e-2, schedule="cosine", patience=0, batch_size=60, clip=0.0
    )
    fit(Loop(module, _feed(x, batch_size=60), vae_objective, training))
    pca = PCA(3).fit(x.numpy())
    decoded = module.output.weight.detach().numpy()
    assert np.degrees(subspace_angles(decoded, pca.components_.T)).max() < 1.0
    rebuilt = decode_mean(module, encode_mean(module, x))
    best = pca.inverse_transform(pca.transform(x.numpy()))
    error, least = ((x.numpy() - levels) ** 2 for levels in (rebuilt.numpy(), best))
    assert least.mean() < error.mean() < 1.02 * least.mean()


def test_epoch_loss_is_the_sum_over_rows_divided_by_their_number() -> None:
    """A mean of batch means would give the last, smaller batch too much weight."""
    x, y = _data(), torch.randn(50, 2)
    module = _linear()
    by_hand = _squares(module, (x, y), 0.0, torch.Generator())["loss"].mean().item()
    config = TrainingConfig(epochs=1, lr=1e-30, schedule="constant")
    feed = _feed(x, y)
    sizes = [len(batch[0]) for batch in feed.epoch(0)]
    assert sizes == [16, 16, 16, 2]
    history = fit(Loop(module, feed, _squares, config, validation=_feed(x, y, batch_size=7)))
    row = history.rows[0]
    assert row["train_loss"] == pytest.approx(by_hand, rel=1e-6)
    assert row["train_half"] == pytest.approx(by_hand / 2, rel=1e-6)
    assert row["val_loss"] == pytest.approx(by_hand, rel=1e-6)
    assert row["epoch"] == 1 and row["lr"] == 1e-30 and row["seconds"] > 0


def test_one_step_is_adam_on_the_batch_mean() -> None:
    x, y = _data(16), torch.randn(16, 2)
    ours, theirs = _linear(), _linear()
    config = TrainingConfig(
        epochs=1, lr=0.01, clip=0.5, weight_decay=0.1, schedule="constant", ema=0.0
    )
    fit(Loop(ours, _feed(x, y, shuffle=False), _squares, config))
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias]}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0)
    _squares(theirs, (x, y), 0.0, torch.Generator())["loss"].mean().backward()
    assert nn.utils.clip_grad_norm_(theirs.parameters(), 0.5) > 0.5
    optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_last_batch_of_one_sample_works(batch_norm: bool) -> None:
    feed = _feed(_data(33))
    assert [len(b[0]) for b in feed.epoch(0)] == [16, 16, 1]
    module = _vae(batch_norm=batch_norm, dropout=0.1)
    history = fit(Loop(module, feed, vae_objective, TrainingConfig(epochs=3), beta=1.0))
    assert len(history.rows) == 3 and math.isfinite(history.best_loss)


def test_best_weights_are_restored_and_early_stopping_waits_its_patience() -> None:
    x, y = _data(), torch.zeros(50, 2)
    held_out = _feed(x[:10], y[:10] + 1.5)
    module, kept = _linear(), {}

    def on_epoch(row: dict) -> None:
        kept[row["epoch"]] = module.weight.detach().clone()

    config = TrainingConfig(epochs=200, lr=0.02, patience=4, schedule="constant", ema=0.0)
    seen = Observer(on_epoch=on_epoch)
    history = fit(Loop(module, _feed(x, y), _squares, config, validation=held_out, observer=seen))
    losses = [row["val_loss"] for row in history.rows]
    assert history.stopped_early and 1 < history.best_epoch < len(losses)
    assert history.best_epoch == int(np.argmin(losses)) + 1 == len(losses) - 4
    assert history.best_loss == min(losses)
    assert torch.equal(module.weight, kept[history.best_epoch])
    assert not torch.equal(module.weight, kept[len(losses)])
    assert not module.training


def test_keep_last_goes_on_to_the_end() -> None:
    x, y = _data(), torch.zeros(50, 2)
    config = TrainingConfig(epochs=9, lr=1.0, patience=1, schedule="constant", ema=0.0)
    module, last = _linear(), []
    seen = Observer(on_epoch=lambda row: last.append(module.weight.detach().clone()))
    history = fit(Loop(module, _feed(x, y), _squares, config, observer=seen, keep_best=False))
    assert history.n_epochs == 9 and history.best_epoch == 0
    assert torch.equal(module.weight, last[-1])


def test_averages_of_the_weights_are_what_is_validated_and_kept() -> None:
    """Against torch's own averaging, with the same memory."""
    x, y = _data(), torch.randn(50, 2)
    module, own = _linear(), _linear()
    oracle = AveragedModel(
        own, avg_fn=lambda old, new, n: old + (1 - min(0.8, (n + 1) / (n + 11))) * (new - old)
    )
    oracle.update_parameters(own)  # its first call copies; counted from the step after it

    def follow(told: dict) -> None:
        own.load_state_dict(module.state_dict())
        oracle.n_averaged.fill_(4 * (told["epoch"] - 1) + told["step"] - 1)
        if oracle.n_averaged == 0:  # torch would copy at 0
            share = 1 - 1 / 11
            with torch.no_grad():
                for old, new in zip(oracle.module.parameters(), own.parameters(), strict=True):
                    old.lerp_(new, share)
        else:
            oracle.update_parameters(own)

    config = TrainingConfig(epochs=3, lr=0.05, schedule="constant", ema=0.8)
    watching = Observer(on_step=follow)
    history = fit(Loop(module, _feed(x, y), _squares, config, keep_best=False, observer=watching))
    assert history.n_epochs == 3
    torch.testing.assert_close(module.weight, oracle.module.weight, rtol=1e-4, atol=1e-6)
    assert not torch.equal(module.weight, own.weight)


def test_averaging_does_not_disturb_the_steps() -> None:
    losses = []
    for ema in (0.0, 0.9):
        config = TrainingConfig(epochs=4, ema=ema)
        held_out = _feed(_data(20))
        history = fit(
            Loop(_vae(), _feed(_data()), vae_objective, config, beta=1.0, validation=held_out)
        )
        losses.append([row["train_loss"] for row in history.rows])
    assert losses[0] == losses[1]


def test_the_start_is_kept_where_no_epoch_is_better() -> None:
    x, y = _data(), torch.zeros(50, 2)
    module = nn.Linear(6, 2)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    config = TrainingConfig(epochs=50, patience=3, lr=0.1)
    held_out = _feed(x, y)
    noisy = torch.randn(50, 2)
    history = fit(
        Loop(module, _feed(x, noisy), _squares, config, validation=held_out, start_counts=True)
    )
    assert history.start == {"val_loss": 0.0, "val_half": 0.0}
    assert (history.best_epoch, history.best_loss, history.n_epochs) == (0, 0.0, 3)
    assert history.stopped_early and not module.weight.any()


def test_the_start_does_not_count_before_a_warm_up() -> None:
    config = TrainingConfig(epochs=4, kl_warmup=0.5)
    history = fit(
        Loop(
            _vae(),
            _feed(_data()),
            vae_objective,
            config,
            beta=1.0,
            validation=_feed(_data(20)),
            start_counts=True,
        )
    )
    assert history.start is None and history.best_epoch > 2


def test_best_epoch_counts_only_after_the_warm_up() -> None:
    config = TrainingConfig(epochs=8, kl_warmup=0.5, lr=1e-30, patience=0)
    history = fit(Loop(_vae(), _feed(_data()), vae_objective, config, beta=2.0))
    betas = [row["beta"] for row in history.rows]
    np.testing.assert_allclose(betas, [0.4, 0.8, 1.2, 1.6, 2.0, 2.0, 2.0, 2.0])
    losses = [row["train_loss"] for row in history.rows]
    assert min(losses[:4]) < min(losses[4:])
    assert history.best_epoch == 5 + int(np.argmin(losses[4:]))


def test_validation_uses_the_full_beta_and_the_same_noise_each_epoch() -> None:
    config = TrainingConfig(epochs=4, kl_warmup=0.5, lr=1e-30)
    module = _vae(batch_norm=False)
    history = fit(
        Loop(module, _feed(_data()), vae_objective, config, beta=1.0, validation=_feed(_data(20)))
    )
    assert len({row["val_loss"] for row in history.rows}) == 1
    row = history.rows[0]
    assert row["val_loss"] == pytest.approx(row["val_reconstruction"] + row["val_kl"])


def test_the_global_generator_is_neither_used_nor_disturbed() -> None:
    results = []
    for noise in (1, 2):
        module = _vae(dropout=0.3)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        fit(Loop(module, _feed(_data()), vae_objective, TrainingConfig(epochs=2), beta=1.0))
        assert torch.equal(torch.get_rng_state(), before)
        results.append(module.output.weight.detach().clone())
    assert torch.equal(results[0], results[1])


def test_another_seed_gives_other_weights() -> None:
    weights = []
    for seed in (0, 1):
        module = _vae()
        fit(
            Loop(
                module, _feed(_data()), vae_objective, TrainingConfig(epochs=1, seed=seed), beta=1.0
            )
        )
        weights.append(module.output.weight.detach().clone())
    assert not torch.equal(*weights)


def test_losses_of_every_step_are_told_on_request() -> None:
    told: list[dict] = []
    seen = Observer(on_step=told.append)
    config = TrainingConfig(epochs=2)
    history = fit(Loop(_vae(), _feed(_data()), vae_objective, config, beta=1.0, observer=seen))
    assert [(t["epoch"], t["step"]) for t in told] == [(e, s) for e in (1, 2) for s in (1, 2, 3, 4)]
    first = [t for t in told if t["epoch"] == 1]
    mean = sum(t["loss"] * t["rows"] for t in first) / sum(t["rows"] for t in first)
    assert mean == pytest.approx(history.rows[0]["train_loss"])
    assert {"reconstruction", "kl", "lr", "beta"} <= set(first[0])


def test_cosine_schedule_matches_torch() -> None:
    told: list[dict] = []
    config = TrainingConfig(epochs=3, lr=0.1, schedule="cosine")
    fit(Loop(_vae(), _feed(_data()), vae_objective, config, observer=Observer(on_step=told.append)))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()
    np.testing.assert_allclose([t["lr"] for t in told], expected, rtol=1e-6)


def test_groups_keep_their_own_rates_and_frozen_parameters_stay() -> None:
    module = _linear()
    start = module.weight.detach().clone()
    module.weight.requires_grad_(False)
    rates: list[float] = []
    biases = [module.bias.detach().clone()]

    def watch(told: dict[str, float]) -> None:
        rates.append(told["lr"])
        biases.append(module.bias.detach().clone())

    config = TrainingConfig(epochs=2, lr=0.1, schedule="cosine")
    fit(
        Loop(
            module,
            _feed(_data(), torch.zeros(50, 2)),
            _squares,
            config,
            groups=[{"params": [module.bias], "lr": 0.01}],
            observer=Observer(on_step=watch),
        )
    )
    assert rates[0] == 0.1 and rates[-1] < 0.1, "as it was set"
    first = (biases[1] - biases[0]).abs()  # Adam's first step is the rate, whatever the gradient
    torch.testing.assert_close(first, torch.full_like(first, 0.01), rtol=1e-3, atol=0)
    assert torch.equal(module.weight, start)


def test_non_finite_loss_names_place_samples_and_genes_and_keeps_the_weights() -> None:
    x = _data()
    x[7, 2] = math.nan
    module = _vae(batch_norm=False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    feed = _feed(x, shuffle=False)
    explain = explain_rows([f"s{i}" for i in range(50)], [f"g{j}" for j in range(6)])
    with pytest.raises(InputError) as raised:
        fit(Loop(module, feed, vae_objective, TrainingConfig(epochs=2), beta=1.0, explain=explain))
    message = str(raised.value)
    assert "non-finite loss at step 1 of epoch 1" in message
    assert "samples s7; genes without a finite level g2" in message
    assert "\n" not in message
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_non_finite_loss_later_on_restores_the_best_epoch() -> None:
    x, y, kept = _data(), torch.zeros(50, 2), []
    module = _linear()

    def poison(row: dict) -> None:
        kept.append(module.weight.detach().clone())
        if row["epoch"] == 2:
            x[:] = math.inf

    config = TrainingConfig(epochs=5, lr=0.01, schedule="constant", ema=0.0)
    with pytest.raises(InputError, match="non-finite loss at step 1 of epoch 3"):
        fit(Loop(module, _feed(x, y), _squares, config, observer=Observer(on_epoch=poison)))
    assert torch.equal(module.weight, kept[1])


def test_non_finite_gradient_changes_nothing() -> None:
    def infinite_slope(module: nn.Module, batch, beta: float, generator: torch.Generator):
        return {"loss": (module(batch[0]).sum(1) * 0.0).abs().sqrt()}

    module = _linear()
    before = module.weight.detach().clone()
    with pytest.raises(InputError, match="non-finite gradient at step 1"):
        fit(Loop(module, _feed(_data()), infinite_slope, TrainingConfig(epochs=1)))
    assert torch.equal(module.weight, before)


def test_non_finite_validation_loss_is_refused() -> None:
    bad = _feed(torch.full((3, 6), math.nan), torch.zeros(3, 2))
    with pytest.raises(InputError, match="non-finite validation loss of epoch 1"):
        fit(
            Loop(
                _linear(),
                _feed(_data(), torch.zeros(50, 2)),
                _squares,
                TrainingConfig(epochs=1),
                validation=bad,
            )
        )


def test_bf16_is_taken_where_asked_for_and_recorded() -> None:
    config = TrainingConfig(epochs=1, precision="bf16")
    history = fit(Loop(_vae(), _feed(_data()), vae_objective, config, beta=1.0))
    assert history.precision == "bf16"
    assert history.precision_gap is not None and 0 < history.precision_gap < 0.01
    plain = fit(Loop(_vae(), _feed(_data()), vae_objective, TrainingConfig(epochs=1), beta=1.0))
    assert plain.precision == "fp32" and plain.precision_gap is None


def test_auto_falls_back_to_fp32_where_bf16_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelling(module: nn.Module, batch, beta: float, generator: torch.Generator):
        out = module(batch[0])
        return {"loss": (out.float() - out.to(torch.bfloat16).float() + 1e-6).square().sum(1)}

    monkeypatch.setattr(loop_module, "resolve_precision", lambda *a, **k: torch.bfloat16)
    with pytest.warns(M1Warning, match="differs by .* from fp32 .* continues in fp32"):
        history = fit(Loop(_linear(), _feed(_data()), cancelling, TrainingConfig(epochs=1)))
    assert history.precision == "fp32" and history.precision_gap > 0.01


def test_history_prints_a_line() -> None:
    row = {"epoch": 3, "train_loss": 12.3456, "val_loss": 13.0, "lr": 5e-4, "seconds": 1.26}
    assert epoch_line(row, 40) == "epoch 3/40  train 12.35  val 13  lr 0.0005  1.3 s"
    assert History().n_epochs == 0


@pytest.mark.parametrize("most", [0.0, 0.5, 100.0])
def test_gradient_is_clipped_to_its_norm_or_left_alone(most: float) -> None:
    module = _linear()
    module(_data()).square().sum().backward()
    before = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    length = math.sqrt(sum(float(g.square().sum()) for g in before))
    assert 0.5 < length
    assert float(clip_gradient(list(module.parameters()), most)) == pytest.approx(length, rel=1e-6)
    factor = min(1.0, most / length) if most else 1.0
    for p, gradient in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, factor * gradient)


def test_values_looked_up_once_follow_the_module() -> None:
    """Modules that are trained together get new storage for the same parameters."""
    module = _linear()
    values, average = moving_values(module), start_average(module)
    for p in module.parameters():
        p.data = torch.full_like(p, 7.0)
    update_average(average, values, decay=0.0, n_steps=1)
    assert set(average) == {"weight", "bias"}
    assert all(bool((value == 7.0).all()) for value in average.values())
