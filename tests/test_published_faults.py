"""Faults of the published pipeline, each shown to be one and shown to be absent here.

The faults are re-made in the test itself, so that a test which no longer sees the fault fails.
Beside these: the class as one integer in tests/encoder/test_encoder_condition.py, decoding in
training mode and the decoder's mean for samples in tests/synthesis/test_synthesis_sample.py, a
hold-out out of the training samples in tests/synthesis/test_synthesis_quality.py.
"""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats
from torch.distributions import Normal

import m1pipe
from m1pipe.cli.main import run
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig
from m1pipe.console import log
from m1pipe.data.batches import MemoryBatches, StreamedBatches
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.data.units import Units
from m1pipe.encoder import load_encoder, train_encoder
from m1pipe.evaluation.compare import compare_tables
from m1pipe.evaluation.predictions import dead_share
from m1pipe.figures import load_pair
from m1pipe.heads.fit import fit_head
from m1pipe.io.reader import open_matrix
from m1pipe.models.vae import PosteriorNoise, VAEModule, kl_per_unit, vae_loss
from m1pipe.settings import build
from m1pipe.synthesis import dependence, marginal, mmd_prdc, privacy, utility
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality_data import load_quality_data
from m1pipe.synthesis.scores import Definition


def _expression(n: int, n_genes: int, seed: int) -> np.ndarray:
    """log2(TPM + 1)-like levels: positive, correlated, some 9 % zeros."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(3.0, 1.5, n_genes) + rng.standard_normal((n, 8)) @ rng.standard_normal(
        (8, n_genes)
    )
    level = np.maximum(level + 0.3 * rng.standard_normal((n, n_genes)), 0)
    limit = np.quantile(level, 0.09)
    return np.where(level <= limit, 0, level).astype(np.float32)


def test_mu_and_log_variance_are_linear() -> None:
    """ReLU on both heads made sigma >= 1 and left units constant."""
    torch.manual_seed(0)
    module = VAEModule(40, ModelConfig(n_latent=12, hidden=(32,), linear_skip=False))
    with torch.no_grad():
        mu, logvar = module.encode(torch.randn(200, 40))
    faulty_mu, faulty_sigma = torch.relu(mu), torch.exp(torch.relu(logvar))
    assert float(faulty_sigma.min()) >= 1
    assert float(mu.min()) < 0 and float(logvar.min()) < 0
    assert int((mu.std(0) > 0).sum()) == 12
    assert float((faulty_mu == 0).float().mean()) > 0.2


def test_zeros_do_not_carry_the_variance() -> None:
    """log(x + 1e-8) gives a few zeros nearly all the variance; log2(x + 1) does not."""
    log_level = _expression(400, 200, seed=1)
    tpm = 2.0**log_level - 1
    zero = tpm == 0
    assert 0.05 < zero.mean() < 0.13

    def share_of_zeros(values: np.ndarray) -> float:
        """What is left of the variance without them, subtracted from 1."""
        return float(1 - (1 - zero.mean()) * values[~zero].var() / values.var())

    assert share_of_zeros(np.log(tpm + 1e-8)) > 0.85
    assert share_of_zeros(np.log2(tpm + 1)) < 0.3
    assert ModelConfig().likelihood == "gaussian"


def test_standardised_inputs_keep_the_network_on_genes_alive() -> None:
    """Raw positive inputs into a 256-32 bottleneck kill most of its units; ours do not."""
    rng = np.random.default_rng(2)
    X = (5 + _expression(500, 800, seed=2)).astype(np.float32)
    Y = (X @ rng.standard_normal((800, 30)) / 40).astype(np.float32)
    names = tuple(f"t{i}" for i in range(30))
    targets = Targets(kind="regression", values=Y, names=names, units=Units())
    rows, test = np.arange(400), np.arange(400, 500)
    ours = HeadConfig(linear=False, epochs=40)
    faulty = replace(
        ours,
        hidden=(256, 32),
        standardize=False,
        initialize_bias=False,
        validation=0.0,
        patience=0,
    )
    mean_error = np.mean((Y[test] - Y[rows].mean(0)) ** 2)

    def fitted(config: HeadConfig) -> tuple[float, float]:
        """Error as a share of the mean's, and share of units that are dead."""
        head = fit_head(X, targets, config, rows=rows, seed=0)
        error = np.mean((head.predict(X[test]) - Y[test]) ** 2) / mean_error
        return float(error), dead_share(head, X[rows])

    alive, dead = fitted(ours), fitted(faulty)
    assert alive[0] < 0.1 and alive[1] < 0.05
    assert dead[0] > 0.3 and dead[1] > 0.5
    assert fitted(HeadConfig(epochs=40))[0] < 0.1


def test_the_mean_is_that_of_the_whole_training_fold() -> None:
    """The mean of the last batch (n = 60) inflates the error by 1 + 1/n."""
    rng = np.random.default_rng(3)
    Y = rng.standard_normal((2060, 400))
    train, test = Y[:1060], Y[1060:]
    whole = np.mean((test - train.mean(0)) ** 2)
    last_batch = np.mean((test - train[-60:].mean(0)) ** 2)
    assert last_batch / whole == pytest.approx((1 + 1 / 60) / (1 + 1 / 1060), abs=0.002)

    frame = pd.DataFrame(Y.astype(np.float32), index=[f"s{i}" for i in range(len(Y))])
    frame.columns = [f"t{i}" for i in range(400)]
    X = pd.DataFrame(rng.standard_normal((2060, 3)).astype(np.float32), index=frame.index)
    X.columns = ["g0", "g1", "g2"]
    result = m1pipe.cross_validate(X, frame, config=CrossvalConfig(models=("mean",)))
    expected = np.empty(len(Y))
    for fold in range(5):
        inside = result.folds[0] != fold
        chosen = frame.loc[result.samples].to_numpy(dtype=np.float64)
        expected[~inside] = np.mean((chosen[~inside] - chosen[inside].mean(0)) ** 2, axis=1)
    np.testing.assert_allclose(result.losses["mean"][0], expected, rtol=1e-5)


def test_losses_pair_by_sample_or_not_at_all() -> None:
    """Pairs of two differently shuffled loaders are no pairs: their correlation is gone."""
    rng = np.random.default_rng(4)
    ids = np.array([f"s{i}" for i in range(500)])
    difficulty = rng.gamma(2.0, 1.0, 500)
    a = pd.Series(difficulty + 0.05 * rng.standard_normal(500), index=ids)
    b = pd.Series(difficulty + 0.05 * rng.standard_normal(500) + 0.02, index=ids)
    order = rng.permutation(500)
    shuffled = b.iloc[order]
    assert abs(np.corrcoef(a, shuffled)[0, 1]) < 0.15
    assert np.corrcoef(a, b)[0, 1] > 0.99
    folds = pd.Series(np.arange(500) % 5, index=ids)
    table = compare_tables({"a": a, "b": shuffled}, folds, pairs=[("a", "b")], family=[])
    found = table.set_index("test").loc["paired_t", "p"]
    assert found == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    with pytest.raises(ValueError, match="sample"):
        compare_tables({"a": a, "b": shuffled.iloc[:-1]}, folds, pairs=[("a", "b")], family=[])


def test_every_row_is_seen_once_an_epoch(tmp_path: Path) -> None:
    """The original's loader saw 3.9 % of the data an epoch."""
    rows = np.arange(10, 999)
    batches = MemoryBatches((rows,), batch_size=64, seed=0)
    seen = np.concatenate([np.asarray(batch) for batch in batches.epoch(0)])
    assert np.array_equal(np.sort(rows[seen]), rows)

    X = np.arange(999 * 3, dtype=np.float32).reshape(999, 3)
    streamed = StreamedBatches(
        open_matrix((X, ["a", "b", "c"])), rows, batch_size=64, seed=0, buffer_bytes=20_000
    )
    first = np.concatenate([batch[:, 0] for batch in streamed.epoch(0)])
    assert np.array_equal(np.sort(first), X[rows, 0])


def test_validation_is_every_held_out_row_not_one_random_batch() -> None:
    X = pd.DataFrame(_expression(300, 20, seed=5), index=[f"s{i}" for i in range(300)])
    X.columns = [f"g{i}" for i in range(20)]
    config = build(EncoderConfig, {"epochs": 2, "n_latent": 2, "hidden": (8,), "batch_size": 16})
    encoder = train_encoder(X, config)
    assert encoder.summary["n_validation"] == len(encoder.validation_samples) == 30
    assert not set(encoder.validation_samples) & set(encoder.samples)


def test_no_artefact_needs_unpickling_and_none_is_a_whole_object(tmp_path: Path) -> None:
    """The package calls no pickle, and torch.load only with weights_only=True."""
    calls = 0
    for path in Path(m1pipe.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called.split(".")[0] not in {"pickle", "joblib", "dill"}, path
            if called == "torch.load":
                calls += 1
                assert "weights_only=True" in ast.unparse(node), path
    assert calls > 0


def test_genes_are_matched_by_name_not_by_position(tmp_path: Path) -> None:
    X = pd.DataFrame(_expression(200, 20, seed=6), index=[f"s{i}" for i in range(200)])
    X.columns = [f"g{i}" for i in range(20)]
    config = build(EncoderConfig, {"epochs": 2, "n_latent": 2, "hidden": (8,)})
    train_encoder(X, config).save(tmp_path / "run")
    encoder = load_encoder(tmp_path / "run")
    np.testing.assert_array_equal(encoder.transform(X), encoder.transform(X.iloc[:, ::-1]))


def test_spread_in_sampling_is_that_of_the_kl() -> None:
    """VAExprs drew with exp(l) where its KL took l for a log variance."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 1, 6, dtype=torch.float64, generator=generator)

    def by_draws(spread: torch.Tensor) -> float:
        noise = torch.randn(200_000, 6, dtype=torch.float64, generator=generator)
        z = mu + spread * noise
        log_q = Normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(1)
        return float((log_q - Normal(0.0, 1.0).log_prob(z).sum(1)).mean())

    kl = float(kl_per_unit(mu, logvar).sum(1))
    assert by_draws(torch.exp(0.5 * logvar)) == pytest.approx(kl, abs=0.05)
    assert abs(by_draws(torch.exp(logvar)) - kl) > 0.5
    module = VAEModule(5, ModelConfig(n_latent=6, hidden=(8,), linear_skip=False)).eval()
    x = torch.randn(3, 5)
    with torch.no_grad():
        mean, log_variance = module.encode(x)
        drawn = PosteriorNoise(torch.Generator().manual_seed(1))
        terms = vae_loss(module, x, beta=1.0, noise=drawn)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
        z = mean + torch.exp(0.5 * log_variance) * noise
        expected = -module.likelihood.log_prob(x, module.decode(z)).sum(1)
    torch.testing.assert_close(terms["reconstruction"], expected)


def test_every_latent_unit_has_noise_of_its_own_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """VAExprs drew one number a sample and took it for all latent units."""
    module = VAEModule(5, ModelConfig(n_latent=6, hidden=(8,), linear_skip=False)).eval()
    x = torch.randn(1, 5).repeat(4000, 1)
    drawn = []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda z, *rest: (drawn.append(z), decode(z, *rest))[1])
    with torch.no_grad():
        mu, logvar = module.encode(x)
        vae_loss(module, x, beta=1.0, noise=PosteriorNoise(torch.Generator().manual_seed(0)))
    noise = ((drawn[0] - mu) / torch.exp(0.5 * logvar)).numpy()
    assert np.abs(np.corrcoef(noise.T) - np.eye(6)).max() < 0.08
    shared = mu + torch.exp(0.5 * logvar) * torch.randn(4000, 1)
    faulty = ((shared - mu) / torch.exp(0.5 * logvar)).numpy()
    assert np.corrcoef(faulty.T).min() > 0.99


def test_samples_vary_as_the_data_do_unless_the_mean_is_asked_for() -> None:
    """VAExprs gave the decoder's mean for a sample; the notebook's samples varied a third."""
    rng = np.random.default_rng(10)
    X = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 30))
    X = (20 + X + 2 * rng.standard_normal((300, 30))).astype(np.float32)
    vae = m1pipe.VAE(n_latent=4, epochs=20, random_state=0).fit(X)

    def ratio(noise: bool) -> float:
        made = vae.sample(2000, random_state=1, noise=noise)
        return float(np.exp(np.mean(np.log(made.var(axis=0) / X.var(axis=0)))))

    assert ratio(True) == pytest.approx(1, abs=0.15)
    assert ratio(False) < 0.7


@pytest.mark.parametrize("transform", ["minmax", "standardize", "normal_score"])
def test_scaling_sees_training_rows_only_and_serves_all_others(transform: str) -> None:
    """VAExprs scaled validation rows by their own range, the notebook fitted its scaler to all."""
    X = _expression(200, 12, seed=7)
    held_out = np.arange(150, 200)
    X[held_out] += 3
    frame = pd.DataFrame(X, index=[f"s{i}" for i in range(200)])
    frame.columns = [f"g{j}" for j in range(12)]
    options = {"epochs": 1, "n_latent": 2, "hidden": (4,), "transform": transform}
    encoder = train_encoder(frame, build(EncoderConfig, options), validation=held_out)
    alone = fit_gene_transform(transform, [X[:150]])
    # sums over rows, read in blocks there and at once here
    np.testing.assert_allclose(encoder.scaler.apply(X), alone.apply(X), rtol=1e-5, atol=1e-5)
    own = fit_gene_transform(transform, [X[held_out]]).apply(X[held_out])
    assert np.abs(encoder.scaler.apply(X[held_out]) - own).mean() > 0.1
    assert encoder.validation_samples == tuple(f"s{i}" for i in held_out)


def test_initialisation_and_draws_follow_the_seed_alone() -> None:
    """The notebook's networks started anew at every run."""
    X = pd.DataFrame(_expression(80, 10, seed=8), index=[f"s{i}" for i in range(80)])
    X.columns = [f"g{j}" for j in range(10)]
    found = []
    for unrelated, seed in [(1, 5), (2, 5), (1, 6)]:
        torch.manual_seed(unrelated)
        np.random.seed(unrelated)  # noqa: NPY002 - the global state that must not matter
        options = {"epochs": 2, "n_latent": 2, "hidden": (4,), "seed": seed, "linear_skip": False}
        vae = m1pipe.VAE(**{k: v for k, v in options.items() if k != "seed"}, random_state=seed)
        found.append(vae.fit(X).sample(5, random_state=3))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_logarithms_are_not_taken_twice() -> None:
    """VAExprs log-normalised once more what was logarithms already, before plotting."""
    frames = {}
    for seed, role in enumerate(("real", "synthetic", "holdout")):
        frame = pd.DataFrame(_expression(20, 6, seed=seed), index=[f"{role}{i}" for i in range(20)])
        frame.columns = [f"g{j}" for j in range(6)]
        frame.attrs["units"] = "log2_tpm1"
        frames[role] = frame
    material = load_quality_data(*frames.values(), QualityConfig())
    np.testing.assert_array_equal(material.real, frames["real"].to_numpy())
    assert material.is_log
    assert np.log2(1 + material.real).max() < 0.7 * material.real.max()
    pair = load_pair(frames["real"], frames["synthetic"])
    np.testing.assert_array_equal(pair.real, frames["real"].to_numpy())


def test_there_is_no_quality_without_a_hold_out_and_no_score_without_its_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The notebook scored against the rows it had trained on, by scores that it did not define."""
    assert run(["quality", "--real", "x.h5ad", "--synthetic", "s.h5ad", "--out", "q"]) == 2
    assert "--holdout" in capsys.readouterr().err
    families = (marginal, dependence, mmd_prdc, utility, privacy)
    kept = [value for family in families for value in vars(family).values()]
    groups = [value if isinstance(value, tuple) else (value,) for value in kept]
    scores = [score for group in groups for score in group if isinstance(score, Definition)]
    assert len(scores) > 40
    for score in scores:
        assert len(score.meaning) > 10
        assert score.ideal in ("higher", "lower", "one", "half", "shown")


def test_the_mean_over_genes_beside_the_summed_kl_collapses_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error averaged over p genes beside a summed KL is a KL p times too heavy."""
    X = pd.DataFrame(_expression(120, 100, seed=9), index=[f"s{i}" for i in range(120)])
    X.columns = [f"g{j}" for j in range(100)]
    AnnData(X, uns={"units": "log2_tpm1"}).write_h5ad(tmp_path / "x.h5ad")
    faulty = ["--preset", "overview", "--beta", "100"]
    for name, options in [("good", []), ("faulty", faulty)]:
        arguments = ["train", str(tmp_path / "x.h5ad"), "--out", str(tmp_path / name)]
        assert run([*arguments, "--latent", "4", "--epochs", "10", *options]) == 0
        said = capsys.readouterr()
        collapsed = "none of the 4 latent units carries anything" in said.err
        assert collapsed == (name == "faulty")
        assert ("0 of 4 units active" in said.out) == (name == "faulty")
    log.handlers.clear()
