"""Steps of VAE training against the published loop, in samples a second.

Every side trains the same network in a process of its own, and the sides take turns:

- original: the published loop: an HDF5 file read row by row through Dataset and DataLoader, fp32,
  the logarithm, densities and diagnostics of every step as written there, Adam;
- tuned: the same with the allocator told to keep its memory;
- pythae: its VAE, data set and DataLoader, with Adam (0.1.2; `--rivals` names the folders that
  hold rivals, separated by colons), the allocator told as well;
- scvi: scvi-tools' SCVI of standard size (1.4.2: one hidden layer of 128, zero-inflated counts),
  its data loader and trainer: another and smaller model, for `--small` only;
- fp32, default: `m1pipe.training.loop.fit` on a matrix in memory, in strict fp32 and with the
  precision that it chooses;
- limits: what the machine does at that moment: bf16 and fp32 products, and a copy.

The first steps of every turn are not counted. The share of the kernel is that of the processor's
time in the counted steps. `--small` is 500 genes in a network of 256-128-64, of which no product
is large.

    OMP_NUM_THREADS=1 python benchmarks/vae_training.py --repeats 3 --out FILE
    OMP_NUM_THREADS=1 python benchmarks/vae_training.py --batch-size 512 --sides limits default
    OMP_NUM_THREADS=1 python benchmarks/vae_training.py --small --steps 300
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import LogNormal
from torch.utils.data import DataLoader, Dataset
from turns import Run, compare, keep, peak_mb, take_turns

from m1pipe.config import EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.data.batches import MemoryBatches
from m1pipe.models.vae import VAEModule, vae_objective
from m1pipe.settings import build
from m1pipe.training.batches import Batch, ResidentFeed
from m1pipe.training.device import tune_allocator
from m1pipe.training.history import Observer
from m1pipe.training.loop import Loop, fit

SIDES = ("original", "tuned", "pythae", "scvi", "fp32", "default", "limits")
RIVALS = ("pythae", "scvi")
WARM = 3


@dataclass(frozen=True)
class Shape:
    """Sizes of the network that every side trains."""

    n_genes: int
    hidden: tuple[int, ...]
    n_latent: int

    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every linear layer."""
        down = (self.n_genes, *self.hidden, 2 * self.n_latent)
        up = (self.n_latent, *self.hidden[::-1], self.n_genes)
        return [*pairwise(down), *pairwise(up)]

    def flop(self) -> int:
        """Of a sample: three products a layer, but none for the gradient of the data."""
        first = self.n_genes * self.hidden[0]
        return 2 * (3 * sum(a * b for a, b in self.layers()) - first)


PAPER = Shape(18_965, (4096, 2048, 1024, 512), 256)
SMALL = Shape(500, (256, 128, 64), 32)


@dataclass
class Clock:
    """Times between steps, and the processor's time from the first counted one."""

    n_warm: int
    wall: list[float] = field(default_factory=list)
    begun: os.times_result | None = None

    def tick(self, *_: Any) -> None:
        """A step is done."""
        self.wall.append(time.perf_counter())
        if len(self.wall) == self.n_warm:
            self.begun = os.times()

    def result(self, batch_size: int) -> dict[str, float]:
        """Samples a second by the clock (median step) and by the processor, and shares."""
        assert self.begun is not None
        steps = [b - a for a, b in pairwise(self.wall[self.n_warm - 1 :])]
        now = os.times()
        user, kernel = now.user - self.begun.user, now.system - self.begun.system
        return {
            "samples_per_s": batch_size / median(steps),
            "best_samples_per_s": batch_size / min(steps),
            "samples_per_cpu_s": batch_size * len(steps) / (user + kernel),
            "kernel_share": kernel / (user + kernel),
        }


class Rows(Dataset[np.ndarray]):
    """Rows of an HDF5 file, read one by one."""

    def __init__(self, path: Path) -> None:
        self.rows = h5py.File(path)["expressions"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.rows[i]  # type: ignore[no-any-return]


class Published(nn.Module):
    """The published network: ReLU after every layer but the last, the latent layer included."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        down = shape.layers()[: len(shape.hidden) + 1]
        up = shape.layers()[len(shape.hidden) + 1 :]
        self.encoder = nn.Sequential(*(m for a, b in down for m in (nn.Linear(a, b), nn.ReLU())))
        self.decoder = nn.Sequential(*[m for a, b in up for m in (nn.Linear(a, b), nn.ReLU())][:-1])


def log_normal_density(z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    scaled = (z - mu) / log_sigma.exp()
    return -0.5 * scaled.pow(2) - 0.5 * math.log(2 * math.pi) - log_sigma.exp().log()


def train_published(path: Path, shape: Shape, options: argparse.Namespace, clock: Clock) -> None:
    module = Published(shape)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    loader = DataLoader(Rows(path), batch_size=options.batch_size, shuffle=True, drop_last=True)
    zero, found = torch.zeros(1), []
    for x in endless(loader, WARM + options.steps):
        x = x + 1e-8
        mu, log_sigma = module.encoder(x).chunk(2, -1)
        z = mu + log_sigma.exp() * torch.randn_like(mu)
        likelihood = LogNormal(module.decoder(z), 1.0).log_prob(x).sum(1)
        kl = (log_normal_density(z, mu, log_sigma) - log_normal_density(z, zero, zero)).sum(1)
        loss = -(likelihood - kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((loss.item(), likelihood.mean().item(), kl.mean().item()))
        clock.tick()


def train_pythae(path: Path, shape: Shape, options: argparse.Namespace, clock: Clock) -> None:
    sys.path.extend(options.rivals.split(os.pathsep))
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    own = Published(shape)

    class Encoder(BaseEncoder):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.layers = own.encoder

        def forward(self, x: Tensor) -> Any:
            mu, log_variance = self.layers(x).chunk(2, -1)
            return ModelOutput(embedding=mu, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.layers = own.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    config = VAEConfig(input_dim=(shape.n_genes,), latent_dim=shape.n_latent)
    module = VAE(config, Encoder(), Decoder())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    with h5py.File(path) as file:
        X = torch.from_numpy(file["expressions"][:])
    rows = BaseDataset(X, torch.ones(len(X)))
    loader = DataLoader(rows, batch_size=options.batch_size, shuffle=True, drop_last=True)
    for batch in endless(loader, WARM + options.steps):
        loss = module(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        clock.tick()


def train_scvi(path: Path, shape: Shape, options: argparse.Namespace, clock: Clock) -> None:
    sys.path.extend(options.rivals.split(os.pathsep))
    import anndata
    import scvi
    from lightning.pytorch.callbacks import Callback

    class Ticks(Callback):  # type: ignore[misc,unused-ignore]
        def on_train_batch_end(self, *_: Any) -> None:
            clock.tick()

    with h5py.File(path) as file:
        counts = np.rint(np.exp2(file["expressions"][:]) - 1)
    samples = anndata.AnnData(counts)
    scvi.model.SCVI.setup_anndata(samples)
    model = scvi.model.SCVI(samples, n_latent=shape.n_latent)
    model.train(
        max_epochs=math.ceil((WARM + options.steps) * options.batch_size / len(counts)),
        batch_size=options.batch_size,
        train_size=1.0,
        accelerator="cpu",
        callbacks=[Ticks()],
        logger=False,
        enable_progress_bar=False,
    )


def endless(loader: DataLoader[Any], n_steps: int) -> Iterator[Any]:
    step = 0
    while True:
        for x in loader:
            yield x
            step += 1
            if step == n_steps:
                return


class FirstSteps:
    """So many steps of a feed as one epoch, as often round as it takes."""

    def __init__(self, feed: ResidentFeed, n_steps: int) -> None:
        self.feed, self.n_steps = feed, n_steps
        self.n_rows = n_steps * feed.batches.batch_size

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches as the feed gives them, whole ones only."""
        step = skip
        while step < self.n_steps:
            for batch in self.feed.epoch(epoch):
                if len(batch[-1]) == self.feed.batches.batch_size and step < self.n_steps:
                    yield batch
                    step += 1


def our_config(shape: Shape, batch_size: int, precision: str) -> EncoderConfig:
    sizes = {"hidden": shape.hidden, "n_latent": shape.n_latent}
    training = {"batch_size": batch_size, "precision": precision, "epochs": 1, "patience": 0}
    return build(EncoderConfig, preset_options("m1"), {**sizes, **training, "device": "cpu"})


def train_ours(path: Path, shape: Shape, options: argparse.Namespace, clock: Clock) -> None:
    tune_allocator()
    with h5py.File(path) as file:
        X = torch.from_numpy(file["expressions"][:])
    config = our_config(shape, options.batch_size, "fp32" if options.side == "fp32" else "auto")
    torch.manual_seed(0)
    feed = ResidentFeed((X,), np.arange(len(X)), MemoryBatches((X,), options.batch_size, 0))
    fit(
        Loop(
            VAEModule(shape.n_genes, config.model),
            FirstSteps(feed, WARM + options.steps),
            vae_objective,
            config.training,
            beta=config.model.beta,
            observer=Observer(on_step=clock.tick),
            keep_best=False,
        )
    )


def measure_limits() -> dict[str, float]:
    """GFLOP/s of square products, GB/s of a copy and of Adam (seven streams); by CPU time."""
    copied, stepped = torch.rand(2, 30_000_000).unbind(0), nn.Parameter(torch.rand(30_000_000))
    optimizer = torch.optim.Adam([stepped], lr=1e-4, fused=True)
    stepped.grad = torch.rand(30_000_000)
    return {
        "fp32_gflops": product_gflops(torch.float32),
        "bf16_gflops": product_gflops(torch.bfloat16),
        "copy_gb_per_s": 8 * 30e6 / fastest(lambda: copied[0].copy_(copied[1])) / 1e9,
        "adam_gb_per_s": 28 * 30e6 / fastest(optimizer.step) / 1e9,
    }


def product_gflops(dtype: torch.dtype, n: int = 3072) -> float:
    a, b, out = (torch.randn(n, n).to(dtype) for _ in range(3))
    return 2 * n**3 / fastest(lambda: torch.mm(a, b, out=out)) / 1e9


def fastest(act: Callable[[], Any], repeats: int = 8) -> float:
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        act()
        times.append((time.process_time() - begun) / torch.get_num_threads())
    return min(times)


def side(options: argparse.Namespace) -> None:
    """What a process does: train as its side says, and tell how fast."""
    shape = SMALL if options.small else PAPER
    if options.side == "limits":
        print(json.dumps(measure_limits()))
        return
    if options.side in ("tuned", "pythae", "scvi"):
        tune_allocator()
    clock = Clock(WARM)
    trains = {"fp32": train_ours, "default": train_ours, "pythae": train_pythae}
    trains["scvi"] = train_scvi
    trains.get(options.side, train_published)(options.file, shape, options, clock)
    found = clock.result(options.batch_size)
    gflops = found["samples_per_cpu_s"] * shape.flop() / 1e9
    print(json.dumps({**found, "gflops_a_cpu_s": gflops, "peak_mb": peak_mb()}))


def make_file(path: Path, n_rows: int, n_genes: int) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("expressions", (n_rows, n_genes), "f4", chunks=(1, n_genes))
        for i in range(n_rows):
            rows[i] = np.log2(1 + rng.gamma(0.5, 20, n_genes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="500 genes, 256-128-64, 32 latents")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="counted in every turn")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rivals", default="", help="folder of installed rivals")
    parser.add_argument("--tmp", default=None, help="folder for the file")
    parser.add_argument("--out", type=Path, help="results as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options)
        return
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        path = Path(folder) / "rows.h5"
        make_file(path, options.rows, (SMALL if options.small else PAPER).n_genes)
        passed = ["--file", str(path), *(["--small"] if options.small else [])]
        passed += ["--rivals", options.rivals]
        passed += ["--batch-size", str(options.batch_size), "--steps", str(options.steps)]
        sides = [name for name in options.sides if name not in RIVALS or options.rivals]
        runs = take_turns(__file__, sides, passed, options.repeats)
    keep(options, {"ratios": ratios_of(runs), "runs": runs})


def ratios_of(runs: dict[str, list[Run]]) -> list[Run]:
    """m1pipe against every rival, and its products against the machine's rate."""
    for limit in runs.get("limits", []):
        limit["gflops_a_cpu_s"] = limit["bf16_gflops"]
    pairs = [
        (ours, rival, key)
        for ours in ("fp32", "default")
        for rival in ("original", "tuned", *RIVALS)
        for key in ("samples_per_s", "samples_per_cpu_s")
    ]
    pairs.append(("default", "limits", "gflops_a_cpu_s"))
    return [compare(runs, *pair) for pair in pairs if pair[0] in runs and pair[1] in runs]


if __name__ == "__main__":
    main()
