"""The speed of training on a CUDA card: epochs, share of the matrix rate, copies to the host.

A matrix of simulated samples is made on the card and stays there; the `m1` preset is trained on it
by `m1pipe.training.loop.fit`, as by the commands. In one call:

- limits: bf16 and fp32 products and a copy, as fast as this card takes them at this moment;
- epochs: for each batch size whole epochs over all rows, the first one not counted; what 100 of
  them would take is an extrapolation, and is called so, unless 100 were run;
- copies: a profile of some steps: every copy between host and card and every wait for it, in all
  and a step; what is left at the end of an epoch does not grow with the steps.

Nothing is simulated about a missing card: without one the script says so and ends, and
`--device cpu` runs the same lines on a small scale, to see that they work.

    python benchmarks/on_card.py --out FILE
    python benchmarks/on_card.py --small --out FILE
    OMP_NUM_THREADS=1 python benchmarks/on_card.py --device cpu --rows 512 --genes 200
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from turns import Run, machine, peak_mb
from vae_training import PAPER, SMALL, Shape, our_config

from m1pipe.data.batches import MemoryBatches
from m1pipe.models.vae import VAEModule, vae_objective
from m1pipe.training.batches import Batch, ResidentFeed
from m1pipe.training.device import tune_allocator
from m1pipe.training.history import History
from m1pipe.training.loop import Loop, fit

ROWS = 167_884
EPOCHS = {"cuda": (100, 3, 6), "cpu": (2, 2, 2)}
PRODUCT = {"cuda": 8192, "cpu": 512}
COPIED_MB = {"cuda": 4096, "cpu": 64}
PROFILED_STEPS = 100
RANK = 32
# What copies between host and card, and what waits for one, are called in a profile.
COPIES = ("Memcpy HtoD", "Memcpy DtoH", "Memset", "cudaMemcpyAsync")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::_local_scalar_dense")


@dataclass(frozen=True)
class FirstSteps:
    """The first steps of a feed's epochs."""

    feed: ResidentFeed
    n_steps: int

    @property
    def n_rows(self) -> int:
        """Rows of these steps."""
        return min(self.feed.n_rows, self.n_steps * self.feed.batches.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches as the feed gives them."""
        for _, batch in zip(range(skip, self.n_steps), self.feed.epoch(epoch, skip), strict=False):
            yield batch


def make_levels(n_rows: int, n_genes: int, device: torch.device) -> Tensor:
    """Standardised levels of a few factors and noise, made in pieces where they are to lie."""
    generator = torch.Generator(device).manual_seed(0)
    X = torch.randn(n_rows, n_genes, generator=generator, device=device)
    loadings = torch.randn(RANK, n_genes, generator=generator, device=device)
    for rows in X.split(4096):
        factors = torch.randn(len(rows), RANK, generator=generator, device=device)
        rows.addmm_(factors, loadings, alpha=RANK**-0.5).mul_(0.5**0.5)
    return X


def train(X: Tensor, shape: Shape, batch_size: int, epochs: int, steps: int | None) -> History:
    """So many epochs of the `m1` preset, or the first steps of each."""
    config = our_config(shape, batch_size, "auto")
    torch.manual_seed(0)
    feed = ResidentFeed((X,), np.arange(len(X)), MemoryBatches((X,), batch_size, 0))
    return fit(
        Loop(
            VAEModule(shape.n_genes, config.model).to(X.device),
            feed if steps is None else FirstSteps(feed, min(steps, feed.n_steps)),
            vae_objective,
            replace(config.training, epochs=epochs),
            beta=config.model.beta,
            keep_best=False,
        )
    )


def time_epochs(X: Tensor, shape: Shape, batch_size: int, epochs: int, rate: float) -> Run:
    """Seconds of whole epochs, and the share of the matrix rate in TFLOP/s that they reach."""
    reset_peak(X.device)
    begun = time.perf_counter()
    history = train(X, shape, batch_size, epochs, None)
    seconds = [row["seconds"] for row in history.rows]
    one = median(seconds[1:] or seconds)
    return {
        "batch_size": batch_size,
        "steps_an_epoch": -(-len(X) // batch_size),
        "epochs": epochs,
        "precision": history.precision,
        "all_s": time.perf_counter() - begun,
        "epoch_s": one,
        "epochs_s": seconds,
        ("hundred_epochs_s" if epochs == 100 else "hundred_epochs_s_extrapolated"): (
            sum(seconds) if epochs == 100 else 100 * one
        ),
        "samples_per_s": len(X) / one,
        "tflops": len(X) * shape.flop() / one / 1e12,
        "share_of_matrix_rate": len(X) * shape.flop() / one / 1e12 / rate,
        "peak_mb": peak(X.device),
        "first_and_last_loss": [history.rows[k]["train_loss"] for k in (0, -1)],
    }


def find_copies(X: Tensor, shape: Shape, batch_size: int) -> Run:
    """Copies and waits of an epoch of `PROFILED_STEPS` steps, after one that is not looked at."""
    train(X, shape, batch_size, 1, 2)
    on_card = [ProfilerActivity.CUDA] if X.device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_card]) as profiled:
        train(X, shape, batch_size, 1, PROFILED_STEPS)
        synchronize(X.device)
    steps = min(PROFILED_STEPS, -(-len(X) // batch_size))
    rows = {event.key: event for event in profiled.key_averages()}
    found = {
        name: {"times": event.count, "a_step": event.count / steps}
        for name, event in sorted(rows.items())
        if any(word in name for word in (*COPIES, *WAITS))
    }
    table = profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)
    return {"batch_size": batch_size, "steps": steps, "events": found, "table": table.split("\n")}


def measure_limits(device: torch.device) -> Run:
    """Products of square matrices in TFLOP/s and a copy in GB/s, the best of several."""
    n, n_copied = PRODUCT[device.type], COPIED_MB[device.type] * 2**18
    copied = torch.ones(2, n_copied, device=device)
    found: Run = {"copy_gb_per_s": 8 * n_copied / fastest(copy_rows(copied), device) / 1e9}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b, out = (torch.randn(n, n, device=device).to(dtype) for _ in range(3))
        seconds = fastest(multiply(a, b, out), device)
        found[f"{name}_tflops"] = 2 * n**3 / seconds / 1e12
    return found


def copy_rows(both: Tensor) -> Callable[[], Any]:
    return lambda: both[0].copy_(both[1])


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], Any]:
    return lambda: torch.mm(a, b, out=out)


def fastest(act: Callable[[], Any], device: torch.device, repeats: int = 12) -> float:
    times = []
    for _ in range(repeats):
        synchronize(device)
        begun = time.perf_counter()
        act()
        synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Largest memory taken on the card, the samples included; on the CPU of the process."""
    on_card = device.type == "cuda"
    return torch.cuda.max_memory_allocated(device) / 2**20 if on_card else peak_mb()


def hardware(device: torch.device) -> Run:
    """The machine, and the card with its software."""
    found = machine()
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "card_gib": round(card.total_memory / 2**30, 1)}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def commit() -> str | None:
    """The state of the repository, with a mark where files were changed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--genes", type=int, help="as many as the shape has, where not given")
    parser.add_argument("--small", action="store_true", help="500 genes, 256-128-64, 32 latents")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1024, 64, 4096])
    parser.add_argument("--epochs", type=int, nargs="+", help="of each batch size")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    options.epochs = options.epochs or EPOCHS[options.device][: len(options.batch_sizes)]
    if len(options.epochs) != len(options.batch_sizes):
        parser.error(f"--epochs: expected {len(options.batch_sizes)} numbers, one a batch size")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("on_card: no CUDA device here: run it where there is one, or --device cpu")
    return options


def main() -> None:
    options = parse()
    tune_allocator()
    device = torch.device(options.device)
    shape = SMALL if options.small else PAPER
    shape = replace(shape, n_genes=options.genes or shape.n_genes)
    limits = measure_limits(device)
    X = make_levels(options.rows, shape.n_genes, device)
    runs = [
        time_epochs(X, shape, size, epochs, limits["bf16_tflops"])
        for size, epochs in zip(options.batch_sizes, options.epochs, strict=True)
    ]
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    found = {
        "settings": settings,
        "config": str(our_config(shape, options.batch_sizes[0], "auto")),
        "commit": commit(),
        "machine": hardware(device),
        "limits": limits,
        "epochs": runs,
        "copies": find_copies(X, shape, options.batch_sizes[0]),
    }
    text = json.dumps(found, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
