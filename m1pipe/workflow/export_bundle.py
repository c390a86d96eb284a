"""`m1pipe export --bundle`: a run as one file that can be checked, with its card and its ONNX."""

import tempfile
from pathlib import Path

from m1pipe.artefacts import file_digest
from m1pipe.atomic import PathLike, atomic_file, refuse_existing
from m1pipe.console import log
from m1pipe.encoder.bundle import COPIED, ONNX_FILE, pack, run_files
from m1pipe.encoder.drift import drift_range
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.onnx import contract, pack_onnx
from m1pipe.encoder.trained import CARD_FILE, Encoder
from m1pipe.errors import InputError
from m1pipe.provenance import read_provenance
from m1pipe.workflow.model_card import model_card


def export_bundle(run: PathLike, path: PathLike, *, force: bool = False) -> str:
    """Write the files of a run, its model card and its ONNX into one zip, and open that again.

    Parameters
    ----------
    run : path
        Folder, or bundle.
    path : path
    force : bool
        Overwrite the file.

    Returns
    -------
    str
        One line: what is in it, and the SHA-256 of the file.

    Raises
    ------
    InputError
        If the run cannot be read, or the file not be written.
    """
    path = refuse_existing(path, force=force)
    encoder = load_encoder(run)
    with run_files(run) as folder, tempfile.TemporaryDirectory(prefix="m1pipe-") as made:
        sources = {name: folder / name for name in COPIED if (folder / name).is_file()}
        card = model_card(encoder, path.name, read_provenance(folder) or {})
        sources[CARD_FILE] = _written(Path(made) / CARD_FILE, card.encode())
        onnx = _onnx(encoder)
        if onnx:
            sources[ONNX_FILE] = _written(Path(made) / ONNX_FILE, onnx)
        facts = {"contract": contract(encoder), "drift": drift_range(encoder)}
        with atomic_file(path) as temporary:
            pack(temporary, sources, facts)
            if load_encoder(temporary).digest() != encoder.digest():
                raise InputError(f"{run}: it changed while it was exported: run the command again")
    parts = "with" if onnx else "without"
    return (
        f"{path}: {len(encoder.genes):,} genes in {encoder.units} to {encoder.n_latent} latents, "
        f"{parts} ONNX; SHA-256 {file_digest(path)}"
    )


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _onnx(encoder: Encoder) -> bytes:
    """The network as ONNX; empty where it cannot be, with the reason in the log."""
    try:
        return pack_onnx(encoder)[0]
    except InputError as error:
        log.warning("warning: no %s in the bundle; %s", ONNX_FILE, error)
        return b""
