"""Bundles: they stand for the run that they were made of, and nothing that differs is opened."""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, bundle, load_encoder, train_encoder
from m1pipe.errors import InputError
from m1pipe.settings import build
from m1pipe.workflow import export_bundle as exporting
from m1pipe.workflow.export_bundle import export_bundle

Make = Callable[..., anndata.AnnData]
Members = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


@pytest.fixture(scope="module")
def packed(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its bundle."""
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    folder = tmp_path_factory.mktemp("bundle")
    encoder.save(folder / "vae")
    assert "with ONNX" in export_bundle(folder / "vae", folder / "vae.zip")
    return folder / "vae.zip"


def _members(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def _write(path: Path, members: Members, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def test_a_bundle_is_the_run(encoder: Encoder, packed: Path, data: anndata.AnnData) -> None:
    opened = load_encoder(packed)
    assert opened.digest() == encoder.digest()
    assert opened.summary == encoder.summary
    assert opened.samples == encoder.samples  # what leakage is found by
    np.testing.assert_array_equal(opened.transform(data), encoder.transform(data))


def test_the_manifest_says_what_is_there(packed: Path, data: anndata.AnnData) -> None:
    members = dict(_members(packed))
    manifest = json.loads(members.pop("manifest.json"))
    assert {"model.md", "model.safetensors", "encoder.onnx"} < members.keys()
    assert {name: known["sha256"] for name, known in manifest["members"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in members.items()
    }
    assert manifest["contract"]["genes"] == data.var_names.tolist()
    assert manifest["contract"]["units"] == "log2_normalized1"
    trained_on = data[list(load_encoder(packed).samples)].to_df()
    np.testing.assert_allclose(manifest["drift"]["gene_means"], trained_on.mean(), rtol=1e-5)
    np.testing.assert_allclose(manifest["drift"]["gene_sds"], trained_on.std(ddof=0), rtol=1e-5)
    assert "m1pipe encode vae.zip" in members["model.md"].decode()


def test_its_onnx_needs_no_torch(encoder: Encoder, packed: Path, expression: Make) -> None:
    """Within 1e-5 of the largest latent: float32 sums of 40 terms, added up in another order."""
    X = np.asarray(expression(9, seed=7).X)
    np.save(packed.parent / "x.npy", X)
    code = (
        "import sys, zipfile, numpy as np, onnxruntime as ort\n"
        "part = zipfile.ZipFile('vae.zip').read('encoder.onnx')\n"
        "session = ort.InferenceSession(part, providers=['CPUExecutionProvider'])\n"
        "np.save('z.npy', session.run(['Z'], {'X': np.load('x.npy')})[0])\n"
        "assert not {'torch', 'm1pipe'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=packed.parent, check=True)
    expected = encoder.encode_array(X)
    found = np.load(packed.parent / "z.npy")
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_commands_take_it_for_a_run(
    encoder: Encoder, packed: Path, data: anndata.AnnData, tmp_path: Path
) -> None:
    data.write_h5ad(tmp_path / "x.h5ad")
    x, out = str(tmp_path / "x.h5ad"), str(tmp_path / "z.h5ad")
    assert run(["encode", str(packed), x, "--out", out]) == 0
    np.testing.assert_array_equal(anndata.read_h5ad(out).X, encoder.transform(data))
    made = str(tmp_path / "made.h5ad")
    assert run(["generate", str(packed), "-n", "3", "--data", x, "--out", made]) == 0
    fit = ["--x", x, "--label", "tissue", "--encoder", str(packed), "--model", "vae_linear"]
    assert run(["fit", *fit, "--out", str(tmp_path / "head")]) == 0
    known = json.loads((tmp_path / "head/provenance.json").read_text())["inputs"]["encoder"]
    assert known["sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()


def _flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _changed(members: Members, name: str, change: Callable[[bytes], bytes]) -> Members:
    return [(n, change(c) if n == name else c) for n, c in members]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: _changed(m, "model.safetensors", _flipped), "the SHA-256 of model.safetensors"),
        (lambda m: _changed(m, "encoder.onnx", _flipped), "the SHA-256 of encoder.onnx"),
        (lambda m: _changed(m, "model.md", lambda c: c + b"x"), "'model.md' is not as the manif"),
        (lambda m: [*m, ("../evil.txt", b"x")], r"'\.\./evil\.txt' in it is not"),
        (lambda m: [*m, ("/tmp/evil.txt", b"x")], "'/tmp/evil.txt' in it is not"),
        (lambda m: [*m, ("levels.safetensors", b"x")], "'levels.safetensors' is not as the"),
        (lambda m: m[:-1], "'encoder.onnx' is not as the manifest lists it"),
        (lambda m: m[1:], "no manifest.json in it"),
        (lambda m: _changed(m, "manifest.json", lambda c: b"[]"), "copy the file again"),
        (lambda m: _changed(m, "manifest.json", lambda c: b"[" * 10**6), "recursion"),
        (
            lambda m: _changed(m, "manifest.json", lambda c: c.replace(b'on": 1', b'on": 2')),
            "format_version is '2', not 1",
        ),
    ],
)
def test_what_differs_is_refused(
    packed: Path, tmp_path: Path, change: Callable[[Members], Members], match: str
) -> None:
    path = _write(tmp_path / "vae.zip", change(_members(packed)))
    with pytest.raises(InputError, match=match) as refused:
        load_encoder(path)
    assert str(refused.value).startswith(f"{path}: expected the folder of a run, or a bundle")
    assert "\n" not in str(refused.value)
    assert not list(Path(tempfile.gettempdir()).glob("m1pipe-*/model.json"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_comes_once(packed: Path, tmp_path: Path) -> None:
    members = _members(packed)
    path = _write(tmp_path / "vae.zip", [*members, members[1]])
    with pytest.raises(InputError, match=r"'model\.safetensors' in it is not, or not once"):
        load_encoder(path)


def test_nothing_unpacks_to_more_than_the_file(packed: Path, tmp_path: Path) -> None:
    bomb = _write(tmp_path / "bomb.zip", _members(packed), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed, as members of a bundle are not"):
        load_encoder(bomb)
    content = bytearray(packed.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the entry of the last member in the directory
    content[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2
    bomb.write_bytes(content)
    with pytest.raises(InputError, match="its members are larger than it can hold"):
        load_encoder(bomb)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_torn_or_damaged_file_is_refused(packed: Path, tmp_path: Path, share: float) -> None:
    content, path = bytearray(packed.read_bytes()), tmp_path / "vae.zip"
    at = int(share * len(content))
    path.write_bytes(content[:at])
    with pytest.raises(InputError, match="bundle of m1pipe export; File is not a zip file"):
        load_encoder(path)
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected the folder of a run, or a bundle"):
        load_encoder(path)


def test_it_is_written_whole_or_not(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"exists already.*overwrite with force"):
        export_bundle(packed, packed)
    monkeypatch.setattr(exporting, "_onnx", lambda encoder: b"")
    (tmp_path / "old.zip").write_bytes(b"old")
    pack = bundle.pack

    def torn(path: Path, *rest: object) -> None:
        pack(path, *rest)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes()[:-30])

    monkeypatch.setattr(exporting, "pack", torn)
    with pytest.raises(InputError, match="not a zip file"):
        export_bundle(packed, tmp_path / "old.zip", force=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_without_onnx_it_says_why(
    expression: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = {"n_latent": 2, "hidden": [], "epochs": 1, "transform": "normal_score"}
    train_encoder(expression(60, 10), build(EncoderConfig, chosen)).save(tmp_path / "vae")
    assert "without ONNX" in export_bundle(tmp_path / "vae", tmp_path / "vae.zip")
    assert "found normal_score, which has no ONNX operator" in caplog.text
    assert load_encoder(tmp_path / "vae.zip").scaler.levels is not None


def test_it_has_to_be_said_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(tmp_path)]) == 2
    assert "expected --bundle FILE.zip, --onnx FILE.onnx, or both" in capsys.readouterr().err
