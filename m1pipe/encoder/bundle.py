"""A run as one file to share, `m1pipe export --bundle`: a zip whose manifest has every digest.

Members are stored, not compressed: what a file unpacks to is never more than its own size.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m1pipe.artefacts import file_digest, reading
from m1pipe.atomic import PathLike
from m1pipe.encoder.trained import CARD_FILE, ENCODER_FILES, MIXTURE_FILE, QUANTILES_FILE
from m1pipe.errors import InputError

MANIFEST = "manifest.json"
ONNX_FILE = "encoder.onnx"
COPIED = (*ENCODER_FILES, MIXTURE_FILE, QUANTILES_FILE)
MEMBERS = (*COPIED, CARD_FILE, ONNX_FILE)
KIND = {"format": "m1pipe encoder bundle", "format_version": 1}
MOST_MANIFEST = 2**26
WHAT = "the folder of a run, or a bundle of m1pipe export"
REMEDY = "copy the file again, or export it again"


@contextmanager
def run_files(run: PathLike) -> Iterator[Path]:
    """The folder with a run's files: its own, or one that holds a bundle's while the block lasts.

    Parameters
    ----------
    run : path
        Folder, or file of `m1pipe export --bundle`.

    Raises
    ------
    InputError
        If a bundle is damaged, holds anything that is not listed, or a digest differs.
    """
    path = Path(run)
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="m1pipe-") as folder:
        try:
            with reading(path, WHAT, remedy=REMEDY):
                _unpack(path, Path(folder))
            yield Path(folder)
        except InputError as error:
            raise type(error)(error.args[0].replace(folder, str(path))) from None


def is_bundle(path: PathLike) -> bool:
    """Whether a path is a file that begins as bundles do."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as handle:
        return handle.read(4) == b"PK\x03\x04"


def weights_file(run: PathLike) -> Path:
    """The file whose digest stands for a run: its weights, or the bundle."""
    path = Path(run)
    return path if path.is_file() else path / "model.safetensors"


def pack(path: PathLike, sources: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
    """Write files into a bundle.

    Parameters
    ----------
    path : path
    sources : mapping of str to Path
        Member to the file that it is a copy of.
    facts : mapping
        For the manifest, beside the members.
    """
    members = {
        name: {"sha256": file_digest(file), "bytes": file.stat().st_size}
        for name, file in sources.items()
    }
    manifest = json.dumps({**KIND, **facts, "members": members}, indent=1, allow_nan=False)
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr(zipfile.ZipInfo(MANIFEST), manifest)
        for name, file in sources.items():
            member = zipfile.ZipInfo(name)  # without a date: equal files make equal bundles
            member.file_size = file.stat().st_size
            with open(file, "rb") as source, bundle.open(member, "w") as target:
                shutil.copyfileobj(source, target)


def _unpack(path: Path, folder: Path) -> None:
    """Write the members of a bundle into a folder, those that are as the manifest says."""
    with zipfile.ZipFile(path) as bundle:
        sizes = _sizes(bundle, path.stat().st_size)
        members = _members(bundle, sizes)
        for name in sizes:
            found = _copy(bundle, name, folder / name)
            if found != members[name]["sha256"]:
                raise ValueError(f"the SHA-256 of {name} is {found}, not that of the manifest")


def _sizes(bundle: zipfile.ZipFile, most: int) -> dict[str, int]:
    """Bytes of every member beside the manifest; refuses what no bundle holds."""
    infos = bundle.infolist()
    names = [info.filename for info in infos]
    for info in infos:
        if info.filename not in (MANIFEST, *MEMBERS) or names.count(info.filename) > 1:
            raise ValueError(f"{info.filename[:60]!r} in it is not, or not once, part of a bundle")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename} in it is compressed, as members of a bundle are not")
    sizes = {info.filename: info.file_size for info in infos}
    if sum(sizes.values()) > most or sizes.get(MANIFEST, 0) > MOST_MANIFEST:
        raise ValueError("its members are larger than it can hold")
    if MANIFEST not in sizes:
        raise ValueError(f"no {MANIFEST} in it")
    del sizes[MANIFEST]
    return sizes


def _members(bundle: zipfile.ZipFile, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """What the manifest says of every member, all of which are there."""
    manifest = json.loads(bundle.read(MANIFEST))
    for key, wanted in KIND.items():
        if manifest[key] != wanted:
            raise ValueError(f"{key} is {str(manifest[key])[:60]!r}, not {wanted!r}")
    members: dict[str, dict[str, Any]] = manifest["members"]
    for name in (*members, *sizes):
        if name not in sizes or name not in members or members[name]["bytes"] != sizes[name]:
            raise ValueError(f"{name[:60]!r} is not as the manifest lists it")
    return members


def _copy(bundle: zipfile.ZipFile, name: str, place: Path) -> str:
    """Copy a member into a file; its SHA-256."""
    digest = hashlib.sha256()
    with bundle.open(name) as source, open(place, "xb") as target:
        while block := source.read(2**20):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
