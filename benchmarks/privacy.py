"""Which generators leak, and what privacy costs: attacks and fidelity of `m1pipe quality`.

Halves of the samples, patients apart; the most variable genes of the training half. Side by side:
m1pipe's generator, normal distributions and Gaussian copulas by class, the conditional VAE of the
CAMDA health privacy challenge (2025) with its published settings (64 latent units, beta 0.001,
some 800 passes: its 10,000 steps are 730 passes over 871 samples), and as a control samples from
the posteriors of the training samples. Then m1pipe's generator by beta, latent units and
observation noise; then the conditional VAE with differential privacy, which needs opacus:

    python benchmarks/privacy.py tcga.h5ad --label cancer --group patient --out R.json
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from torch import Tensor, nn

from m1pipe.config import EncoderConfig
from m1pipe.io.reader import open_matrix
from m1pipe.io.split import SplitConfig, split_matrix
from m1pipe.settings import build
from m1pipe.synthesis.config import GenerateConfig, QualityConfig
from m1pipe.synthesis.fidelity import (
    classifier_scores,
    classifier_yardsticks,
    fidelity_scores,
    fit_reference,
)
from m1pipe.synthesis.generate import run_generate
from m1pipe.synthesis.quality import label_scores, privacy_scores
from m1pipe.synthesis.quality_data import load_quality_data
from m1pipe.synthesis.rivals import gaussian_copula
from m1pipe.synthesis.utility import ClassedRows, class_gaussian
from m1pipe.workflow.training_run import run_training

PARTS = ("table", "curve", "dp")
GRID: tuple[dict[str, Any], ...] = (
    {},
    *({"beta": beta} for beta in (0.25, 4.0, 16.0, 64.0)),
    *({"n_latent": n} for n in (2, 8, 64)),
    {"n_latent": 8, "beta": 16.0},
    {"transform": "standardize"},
    {"condition": None},
)
QUICK: dict[str, Any] = {"n_resamples": 10, "n_permutations": 1, "n_seeds": 2, "n_draws": 1}
ADDED_NOISE = (0.5, 1.0)  # standard deviations of each gene
EPSILON, DELTA = 10.0, 1e-5
DP_CLIP = 0.1
DP: tuple[dict[str, Any], ...] = (
    {"steps": 2000, "shrunk": 8},
    *(
        {"steps": steps, "shrunk": 8, "private_rate": rate}
        for steps in (100, 1000)
        for rate in (1e-3, 1e-2)
    ),
    {"steps": 50, "private_rate": 1e-3},
)
Drawn = tuple[np.ndarray, np.ndarray]  # levels and classes


class PublishedVAE(nn.Module):
    """The challenge's conditional VAE: genes and class are embedded apart, on both sides."""

    def __init__(self, n_genes: int, n_classes: int, shrunk: int = 1) -> None:
        super().__init__()
        wide, middle, narrow, n_latent = (w // shrunk for w in (1000, 512, 256, 64))

        def layers(*widths: int) -> nn.Sequential:
            pairs = itertools.pairwise(widths)
            return nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), nn.ReLU())))

        self.n_latent, self.n_classes = n_latent, n_classes
        self.genes, self.classes = layers(n_genes, wide, middle, narrow), layers(n_classes, narrow)
        self.both, self.posterior = layers(2 * narrow, middle), nn.Linear(middle, 2 * n_latent)
        self.latents, self.told = layers(n_latent, narrow), layers(n_classes, narrow)
        self.decoder = nn.Sequential(layers(2 * narrow, middle, wide), nn.Linear(wide, n_genes))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior means and log variances, and the levels decoded from a draw."""
        joined = self.both(torch.cat([self.genes(x), self.classes(y)], dim=1))
        mu, logvar = self.posterior(joined).chunk(2, dim=1)
        return mu, logvar, self.decode(mu + torch.exp(logvar / 2) * torch.randn_like(mu), y)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Levels of latents and one-hot classes."""
        decoded: Tensor = self.decoder(torch.cat([self.latents(z), self.told(y)], dim=1))
        return decoded


def published_vae(
    train: ClassedRows,
    n: int,
    seed: int,
    *,
    steps: int = 2000,
    shrunk: int = 1,
    private_rate: float | None = None,
) -> Drawn:
    """Train the published VAE and draw from N(0, I); with a rate, at epsilon 10.

    Layers are narrower by `shrunk`. Means and standard deviations are taken as public.
    """
    torch.manual_seed(seed)
    mean, sd = train.X.mean(axis=0), train.X.std(axis=0)
    sd[sd == 0] = 1
    data = torch.utils.data.TensorDataset(
        torch.from_numpy((train.X - mean) / sd).float(), torch.from_numpy(train.codes)
    )
    model: Any = PublishedVAE(train.X.shape[1], int(train.codes.max()) + 1, shrunk)
    private = private_rate is not None
    optimizer: Any = torch.optim.Adam(model.parameters(), private_rate or 1e-3, fused=not private)
    loader: Any = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    n_classes, epochs = model.n_classes, max(steps * 64 // len(data), 1)
    if private:
        from opacus import PrivacyEngine  # type: ignore[import-not-found,unused-ignore]

        model, optimizer, loader = PrivacyEngine().make_private_with_epsilon(
            module=model, optimizer=optimizer, data_loader=loader, epochs=epochs,
            target_epsilon=EPSILON, target_delta=DELTA, max_grad_norm=DP_CLIP,
        )  # fmt: skip
    for _ in range(epochs):
        for x, codes in loader:
            if not len(x):
                continue
            mu, logvar, decoded = model(x, nn.functional.one_hot(codes, n_classes).float())
            kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
            loss = nn.functional.mse_loss(decoded, x) + 0.001 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model = model._module if private else model
    codes = np.resize(train.codes, n)
    with torch.no_grad():
        told = nn.functional.one_hot(torch.from_numpy(codes), n_classes).float()
        X = model.decode(torch.randn(n, model.n_latent), told).numpy()
    return np.maximum(X * sd + mean, 0).astype(np.float32), codes


def copula_by_class(train: ClassedRows, n: int, seed: int) -> Drawn:
    """A Gaussian copula of the samples of each class."""
    codes = np.sort(np.resize(train.codes, n))
    parts = [
        gaussian_copula(train.X[train.codes == code], int(wanted), seed)
        for code, wanted in zip(*np.unique(codes, return_counts=True), strict=True)
    ]
    return np.concatenate(parts), codes


def normal_by_class(train: ClassedRows, n: int, seed: int) -> Drawn:
    """A normal distribution of the samples of each class."""
    rows = class_gaussian(train, n, np.random.default_rng(seed))
    return np.maximum(rows.X, 0).astype(np.float32), rows.codes


RIVALS: dict[str, Callable[[ClassedRows, int, int], Drawn]] = {
    "normal by class": normal_by_class,
    "Gaussian copula by class": copula_by_class,
    "conditional VAE as published": lambda t, n, s: published_vae(t, n, s),
}


class Half:
    """The samples of one seed: files of both halves, and what is trained on."""

    def __init__(self, folder: Path, chosen: argparse.Namespace, seed: int) -> None:
        config = SplitConfig(stratify=chosen.label, group=chosen.group, seed=seed)
        with open_matrix(chosen.data) as matrix:
            split_matrix(matrix, folder, config)
        self.folder, self.seed, self.chosen = folder, seed, chosen
        self.yardsticks: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
        self.parts = [anndata.read_h5ad(folder / f"{p}.h5ad") for p in ("training", "held_out")]
        spread = np.asarray(self.parts[0].X).var(axis=0)
        genes = np.sort(np.argsort(-spread)[: chosen.genes])
        self.parts = [part[:, genes].copy() for part in self.parts]
        self.parts[0].write_h5ad(folder / "training.h5ad")
        names = self.parts[0].obs[chosen.label].astype(str).to_numpy()
        self.names, codes = np.unique(names, return_inverse=True)
        self.train = ClassedRows(np.asarray(self.parts[0].X), codes)

    def generated(self, settings: dict[str, Any], *draws: GenerateConfig) -> list[anndata.AnnData]:
        """Samples of m1pipe's generator, in one or several ways of drawing."""
        given = {"transform": "normal_score", "condition": self.chosen.label, **settings}
        run, made = self.folder / "run", self.folder / "s.h5ad"
        config = build(EncoderConfig, given, {"seed": self.seed})
        run_training(self.folder / "training.h5ad", run, config, force=True)
        out = []
        for draw in draws:
            run_generate(run, made, draw, force=True)
            out.append(anndata.read_h5ad(made))
        return out

    def as_file(self, drawn: Drawn) -> anndata.AnnData:
        """Drawn levels as the package takes samples."""
        X, codes = drawn
        made = anndata.AnnData(X, var=self.parts[0].var, uns=dict(self.parts[0].uns))
        made.obs[self.chosen.label] = self.names[codes]
        return made

    def row(self, generator: str, made: anndata.AnnData, **about: Any) -> dict[str, Any]:
        """All scores of some samples, as plain numbers."""
        label = self.chosen.label if self.chosen.label in made.obs else None
        config = QualityConfig(label=label, group=self.chosen.group, seed=self.seed, **QUICK)
        real, holdout = self.parts
        data = load_quality_data(real, made, holdout, config)
        reference, S = fit_reference(data, config), data.synthetic
        self.yardsticks[1].update(self.yardsticks[1] or classifier_yardsticks(reference))
        found = fidelity_scores(reference, S, self.yardsticks[0])
        found += classifier_scores(reference, S, self.yardsticks[1])
        found += label_scores(reference) + privacy_scores(reference, S)
        scores = {
            s.definition.name: [round(float(v), 5) for v in (s.value, s.low, s.high, s.ceiling)]
            for s in found
            if np.isfinite(s.value)
        }
        return {"generator": generator, "seed": self.seed, **about, "scores": scores}


def rows(half: Half, part: str) -> Iterator[dict[str, Any]]:
    """The rows of one part for one seed."""
    n, seed = len(half.parts[0]), half.seed
    if part == "table":
        for name, generate in RIVALS.items():
            yield half.row(name, half.as_file(generate(half.train, n, seed)))
        ways = [GenerateConfig(n=n, seed=seed), GenerateConfig(n=n, seed=seed, sampler="posterior")]
        for name, made in zip(("m1pipe", "posteriors"), half.generated({}, *ways), strict=True):
            yield half.row(name, made)
    if part == "curve":
        ways = [GenerateConfig(n=n, seed=seed, noise=noise) for noise in (True, False)]
        for settings in GRID:
            with_noise, without = half.generated(settings, *ways)
            yield half.row("m1pipe", with_noise, settings=settings, noise=1)
            yield half.row("m1pipe", without, settings=settings, noise=0)
            for added in ADDED_NOISE if settings in ({}, {"n_latent": 2}) else ():
                made, rng = with_noise.copy(), np.random.default_rng(seed)
                more = added * half.train.X.std(axis=0) * rng.normal(size=made.shape)
                made.X = np.maximum(made.X + more, 0).astype(np.float32)
                yield half.row("m1pipe", made, settings=settings, noise=1, added=added)
    if part == "dp":
        for about in DP:
            drawn = published_vae(half.train, n, seed, **about)
            yield half.row("conditional VAE", half.as_file(drawn), **about)


def main() -> None:
    """Write every score of every generator, and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="h5ad with a column of classes")
    parser.add_argument("--label", required=True)
    parser.add_argument("--group")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--genes", type=int, default=1000, help="the most variable ones")
    parser.add_argument("--parts", default="table,curve", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found: dict[str, Any] = {"machine": machine, "genes": chosen.genes, "rows": []}
    for seed in map(int, chosen.seeds.split(",")):
        with tempfile.TemporaryDirectory() as name:
            half = Half(Path(name), chosen, seed)
            for part in chosen.parts.split(","):
                begun = time.process_time()
                for row in rows(half, part):
                    found["rows"].append({"part": part, **row})
                    print(
                        _line(found["rows"][-1]), f"{time.process_time() - begun:.0f} s", flush=True
                    )
                    found["load"] = os.getloadavg()[0]
                    chosen.out.write_text(json.dumps(found) + "\n")


def _line(row: dict[str, Any]) -> str:
    """A row in short."""
    scores = row["scores"]
    attacks = [f"{k[:-4]} {v[0]:.2f}" for k, v in scores.items() if k.endswith("_auc")]
    shown = ("ks_mean", "correlation_rmse", "c2st_forest", "tstr", "trtr", "closer_to_train")
    values = [f"{k} {scores[k][0]:.3f}" for k in shown if k in scores]
    about = {k: v for k, v in row.items() if k not in ("scores", "part", "generator")}
    return f"{row['generator']} {about}: {', '.join(values + attacks)}"


if __name__ == "__main__":
    main()
