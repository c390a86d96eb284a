"""Export an encoder to ONNX: levels in the units of training in, latent means out."""

import importlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from m1pipe._version import __version__
from m1pipe.atomic import refuse_existing, write_bytes
from m1pipe.encoder.conditional import class_means
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import VAEModule

CHECKED_SIZES = (1, 7, 64)
TOLERANCE = 1e-5
MOST_BYTES = 2**31 - 2**20  # a protobuf message holds no more
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TALKATIVE = "torch.onnx._internal.exporter._registration"


class LatentMeans(nn.Module):
    """Per-gene transform, missing levels at their mean, and the network up to the latent means.

    Parameters
    ----------
    encoder : Encoder
        With an affine transform.
    """

    location: Tensor
    scale: Tensor
    means: Tensor
    latent_scale: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.module: VAEModule = encoder.module
        means = class_means(encoder.pca.mean, encoder.condition)
        self.register_buffer("location", torch.from_numpy(encoder.scaler.location))
        self.register_buffer("scale", torch.from_numpy(encoder.scaler.scale))
        self.register_buffer("means", torch.from_numpy(means))
        self.register_buffer("latent_scale", torch.from_numpy(encoder.latent_scale))

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Latent means, shape (n_samples, n_latent), of levels in the units of training."""
        x = (x - self.location) / self.scale
        if not self.module.of_counts:
            means = self.means[0] if codes is None else self.means[codes]
            x = torch.where(torch.isnan(x), means, x)
        return self.module.encode_mu(x, codes) * self.latent_scale


def export_onnx(encoder: Encoder, path: str | os.PathLike[str], *, force: bool = False) -> float:
    """Write the encoder as ONNX and compare what it puts out with what torch does.

    Parameters
    ----------
    encoder : Encoder
    path : path
        The file. Input `X`, float32, shape (n, n_genes): levels in the units of training, genes
        in the order of the metadata, NaN where a level is missing; for a conditional model also
        `codes`, int64, shape (n,): the place of each sample's class among the classes. Output
        `Z`, float32, shape (n, n_latent). Metadata: see `contract`.
    force : bool
        Overwrite the file.

    Returns
    -------
    float
        Largest difference from torch over `CHECKED_SIZES`, relative to the largest latent.

    Raises
    ------
    InputError
        If the extra `onnx` is not installed, or the encoder cannot be expressed.
    RuntimeError
        If what was exported differs from torch by more than `TOLERANCE`.
    """
    path = refuse_existing(path, force=force)
    content, gap = pack_onnx(encoder)
    write_bytes(path, content)
    return gap


def pack_onnx(encoder: Encoder) -> tuple[bytes, float]:
    """What `export_onnx` writes, and the difference that it returns; the errors are the same."""
    _refuse(encoder)
    encoder.refuse_centred("export")
    for name in _NEEDED:
        _need(name)
    proto = _translated(encoder)
    for key, value in contract(encoder).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    content: bytes = proto.SerializeToString()
    gap = _gap(encoder, content)
    if not gap <= TOLERANCE:
        raise RuntimeError(f"export: latents differ from those of torch by {gap:.1e} (relative)")
    return content, gap


def contract(encoder: Encoder) -> dict[str, Any]:
    """What goes in and what comes out; the metadata of the file, lists as JSON there.

    Returns
    -------
    dict
        m1pipe (version), digest (SHA-256 of the weights), genes, units, n_latent, latent_scale
        (what the network's own latents are multiplied by); target_sum where there is one;
        condition and classes for a conditional model.
    """
    found = {
        "m1pipe": __version__,
        "digest": encoder.digest(),
        "genes": encoder.genes,
        "units": encoder.units.name,
        "n_latent": encoder.n_latent,
        "latent_scale": encoder.latent_scale.tolist(),
    }
    if encoder.units.target_sum is not None:
        found["target_sum"] = encoder.units.target_sum
    if encoder.condition is not None and encoder.needs_class:
        found["condition"] = encoder.condition.column
        found["classes"] = encoder.condition.classes
    return found


def _refuse(encoder: Encoder) -> None:
    """Refuse what the file format does not hold."""
    if encoder.scaler.levels is not None:
        raise InputError(
            "export: expected an affine transform of the genes (standardize, center, minmax, "
            "none); found normal_score, which has no ONNX operator: train with another --transform"
        )
    module = encoder.module
    parts = [
        part for part in (module.encoder, module.mu_head, module.skip_encoder) if part is not None
    ]
    n_bytes = sum(t.numel() * t.element_size() for part in parts for t in part.parameters())
    if n_bytes > MOST_BYTES:
        raise InputError(
            f"export: expected less than 2.1 GB of weights, as one ONNX file holds; found "
            f"{n_bytes / 1e9:.1f} GB: train with a narrower --hidden"
        )


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"export: expected the package {name}; found none: pip install 'm1pipe[onnx]'"
        ) from None


def _translated(encoder: Encoder) -> Any:
    """The network as an ONNX message, any number of rows."""
    module, rows = LatentMeans(encoder).eval(), torch.export.Dim("n")
    examples: tuple[Tensor, ...] = (torch.zeros(2, len(encoder.genes)),)
    names, sizes = ["X"], [{0: rows}]
    if encoder.needs_class:
        examples = (*examples, torch.zeros(2, dtype=torch.int64))
        names, sizes = [*names, "codes"], [*sizes, {0: rows}]
    with _quiet(), evaluating(encoder.module), torch.no_grad():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            dynamic_shapes=tuple(sizes),
            input_names=names,
            output_names=["Z"],
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("export: torch returned no ONNX program")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says about its own parts from the user."""
    logger = logging.getLogger(_TALKATIVE)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _gap(encoder: Encoder, content: bytes) -> float:
    """Largest relative difference between ONNX and torch on drawn samples."""
    session = _need("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    rng, gap = np.random.default_rng(0), 0.0
    for n in CHECKED_SIZES:
        X, codes = _drawn(encoder, n, rng)
        feeds = {"X": X} if codes is None else {"X": X, "codes": codes}
        expected = encoder.encode_array(X, codes)
        difference = np.abs(session.run(["Z"], feeds)[0] - expected).max()
        gap = max(gap, float(difference / max(np.abs(expected).max(), 1e-6)))
    return gap


def _drawn(
    encoder: Encoder, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples about the training mean, in the units of training, and classes where they count."""
    if encoder.module.of_counts:
        means = np.tile(encoder.recipe.gene_means, (n, 1))
        X = rng.poisson(rng.gamma(2.0, means / 2)).astype(np.float32)
    else:
        spread = np.sqrt(encoder.pca.gene_variances)
        scaled = encoder.pca.mean + spread * rng.normal(size=(n, len(encoder.genes)))
        X = encoder.scaler.invert(scaled.astype(np.float32))
        X[rng.random(X.shape) < 0.01] = np.nan
    if encoder.condition is None or not encoder.needs_class:
        return X, None
    return X, rng.integers(encoder.condition.n_classes, size=n)
