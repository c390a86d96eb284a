"""Device, precision, threads, random generators and the memory allocator."""

import ctypes
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from m1pipe.errors import InputError, M1Warning
from m1pipe.models.kernels import multiplies_bf16

BIG_MODEL = 5_000_000
BIG_BATCH = 64
BF16_TOLERANCE = 0.01
MUCH_WORK = 2e9
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FOUND_THREADS = torch.get_num_threads()
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc, malloc.h


def resolve_device(name: str) -> torch.device:
    """Device meant by "auto", "cpu", "cuda", "cuda:1", ...

    "auto" takes the first CUDA device, or the CPU where there is none; of several processes on a
    host (`LOCAL_RANK` in the environment) each takes its own.

    Raises
    ------
    InputError
        If there is no such device here.
    """
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        return torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:N; found {name!r}")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", own)
    if device.type == "cuda" and device.index >= count:
        raise InputError(f"device: {name!r} asked for; this machine has {count} CUDA devices")
    return device


def resolve_precision(
    name: str, device: torch.device, *, n_parameters: int, batch_size: int
) -> torch.dtype:
    """Type in which matrix products are taken: float32 or bfloat16.

    "auto" is a rule of device and shapes alone, so that the same run takes the same type: bf16 on
    a CUDA device that has it, and on a CPU with AMX tiles or AVX-512's bf16 products; in both
    cases only for a model of at least `BIG_MODEL` parameters and batches of at least `BIG_BATCH`
    rows, because smaller products are bound by the dispatch of kernels. Whether the loss agrees
    is checked by `fit`.

    Parameters
    ----------
    name : {"auto", "fp32", "bf16"}
        As configured.
    device : torch.device
        Where the model is trained.
    n_parameters, batch_size : int
        Size of the model, rows a step.
    """
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if n_parameters < BIG_MODEL or batch_size < BIG_BATCH:
        return torch.float32
    fast = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else multiplies_bf16()
    return torch.bfloat16 if fast else torch.float32


def compare_bf16(losses: Mapping[str, float], asked: str) -> tuple[float, str]:
    """Compare the loss of the first batch in bf16 and fp32, and choose between them.

    Parameters
    ----------
    losses : mapping
        "fp32" and "bf16" to the mean loss.
    asked : str
        As configured; bf16 is taken whatever it gives where it was asked for by name.

    Returns
    -------
    gap : float
        Relative difference.
    precision : {"fp32", "bf16"}

    Warns
    -----
    M1Warning
        Where the losses differ by more than `BF16_TOLERANCE`.
    """
    gap = abs(losses["bf16"] - losses["fp32"]) / max(abs(losses["fp32"]), 1e-12)
    agrees = gap <= BF16_TOLERANCE
    precision = "bf16" if agrees or asked == "bf16" else "fp32"
    if not agrees:
        warnings.warn(
            f"the loss in bf16 differs by {gap:.1%} from fp32 on the first batch; "
            f"training continues in {precision}",
            M1Warning,
            stacklevel=2,
        )
    return gap, precision


def choose_threads(n_parameters: int, batch_size: int) -> int:
    """Threads for steps of this size: one where they are small.

    A small matrix product gains little from a second thread, and waits for it a thousand times
    longer than it computes when another process holds the core. A rule of shapes alone, as the
    number of threads decides the last bits of a sum. What was asked for stands: `OMP_NUM_THREADS`
    or `MKL_NUM_THREADS` in the environment, or `torch.set_num_threads` after this module's import.

    Parameters
    ----------
    n_parameters, batch_size : int
        Size of the model, rows a step: six operations each for one forward and backward pass.
    """
    present = torch.get_num_threads()
    asked = present != _FOUND_THREADS or any(name in os.environ for name in THREAD_VARIABLES)
    return present if asked or 6.0 * n_parameters * batch_size >= MUCH_WORK else 1


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with this many threads in a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random generator on a device, seeded."""
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators for a block, and give them back as they were.

    Initialisation and dropout draw from these; what a caller draws later is not disturbed.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def tune_allocator() -> bool:
    """Keep freed memory in the process instead of returning every large block to the kernel.

    Each step of training frees and asks again for blocks of many megabytes, and glibc by default
    has the kernel zero them anew every time, which can take half of the processor's time. For
    whole processes: commands call it once, the library never does.

    Returns
    -------
    bool
        Whether the C library took both settings; False where it is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
