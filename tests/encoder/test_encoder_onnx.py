"""ONNX: the same latents as torch, at any number of rows, and without torch."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, onnx, train_encoder
from m1pipe.encoder.onnx import export_onnx
from m1pipe.errors import InputError
from m1pipe.settings import build

ort = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")

Make = Callable[..., anndata.AnnData]
FORMATS = Path(onnx.__file__).parents[2] / "docs" / "formats.md"
TINY = {"n_latent": 3, "hidden": [8], "epochs": 2}


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _trained(data: anndata.AnnData, **options: object) -> Encoder:
    return train_encoder(data, build(EncoderConfig, {**TINY, **options}))


def _session(path: Path) -> Any:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": [16, 8], "dropout": 0.2},
        {"linear_skip": False, "transform": "center"},
        {"likelihood": "bernoulli", "transform": "minmax", "activation": "elu"},
        {"hidden": [], "beta": 0.0},
    ],
    ids=["default", "no skip", "minmax", "linear"],
)
def test_latents_are_those_of_torch(
    expression: Make, tmp_path: Path, options: dict[str, object]
) -> None:
    encoder = _trained(expression(100, 20), **options)
    assert export_onnx(encoder, tmp_path / "e.onnx") <= 1e-5
    session = _session(tmp_path / "e.onnx")
    X = np.asarray(expression(64, 20, seed=7).X)
    for n in (1, 7, 64):
        _close(session.run(None, {"X": X[:n]})[0], encoder.encode_array(X[:n]))


def test_a_missing_level_stands_at_the_training_mean(expression: Make, tmp_path: Path) -> None:
    encoder = _trained(expression(100, 20))
    export_onnx(encoder, tmp_path / "e.onnx")
    X = np.array(expression(5, 20, seed=7).X)
    X[2, 3] = np.nan
    found = _session(tmp_path / "e.onnx").run(None, {"X": X})[0]
    _close(found, encoder.encode_array(X))
    X[2, 3] = encoder.recipe.gene_means[3]
    _close(found, encoder.encode_array(X))


def test_a_conditional_model_takes_classes(expression: Make, tmp_path: Path) -> None:
    encoder = _trained(expression(100, 20), condition="tissue")
    assert encoder.condition is not None
    export_onnx(encoder, tmp_path / "e.onnx")
    session = _session(tmp_path / "e.onnx")
    known = session.get_modelmeta().custom_metadata_map
    assert known["condition"] == "tissue"
    assert json.loads(known["classes"]) == ["Brain", "Liver"]
    X = np.asarray(expression(7, 20, seed=7).X)
    codes = np.array([0, 1, 1, 0, 1, 0, 0])
    found = session.run(None, {"X": X, "codes": codes})[0]
    _close(found, encoder.encode_array(X, codes))
    assert np.abs(found - encoder.encode_array(X, 1 - codes)).max() > 1e-3


def test_a_law_of_counts_takes_counts(expression: Make, tmp_path: Path) -> None:
    data = expression(100, 20, counts=True)
    encoder = _trained(data, likelihood="negative_binomial", transform="none")
    export_onnx(encoder, tmp_path / "e.onnx")
    session = _session(tmp_path / "e.onnx")
    assert session.get_modelmeta().custom_metadata_map["units"] == "counts"
    for n in (1, 7, 64):
        _close(session.run(None, {"X": data.X[:n]})[0], encoder.encode_array(data.X[:n]))


def test_metadata_name_genes_units_and_size(encoder: Encoder, tmp_path: Path) -> None:
    export_onnx(encoder, tmp_path / "e.onnx")
    known = _session(tmp_path / "e.onnx").get_modelmeta().custom_metadata_map
    assert tuple(json.loads(known["genes"])) == encoder.genes
    assert known["units"] == "log2_normalized1"
    assert float(known["target_sum"]) == 1e4
    assert int(known["n_latent"]) == 4
    assert known["digest"] == encoder.digest()


def test_normal_scores_are_refused(expression: Make, tmp_path: Path) -> None:
    encoder = _trained(expression(100, 20), transform="normal_score")
    with pytest.raises(InputError, match=r"affine transform.*found normal_score"):
        export_onnx(encoder, tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_that_one_file_cannot_hold_are_refused(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"less than 2\.1 GB of weights"):
        export_onnx(encoder, tmp_path / "e.onnx")


def test_without_the_extra_it_says_what_to_install(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'm1pipe\[onnx\]'"):
        export_onnx(encoder, tmp_path / "e.onnx")


def test_what_differs_from_torch_is_not_written(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differ from those of torch"):
        export_onnx(encoder, tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_documentation_needs_no_torch(
    expression: Make, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ten lines of docs/formats.md, on the file that the command writes."""
    encoder.save(tmp_path / "vae1")
    command = ["export", str(tmp_path / "vae1"), "--onnx", str(tmp_path / "vae1.onnx")]
    assert run(command) == 0
    assert "40 genes in log2_normalized1" in capsys.readouterr().out
    assert run(command) == 1
    data = expression(30, seed=7)[:, ::-1].copy()
    data.to_df().to_csv(tmp_path / "x.csv")
    found = re.search(r"```python\n(# onnxruntime.*?)```", FORMATS.read_text(), re.S)
    assert found is not None
    example = found[1]
    assert len(example.strip().splitlines()) <= 11
    after = "\nimport sys\nassert 'torch' not in sys.modules\nnp.save('z.npy', Z)\n"
    done = subprocess.run(
        [sys.executable, "-c", example + after], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    _close(np.load(tmp_path / "z.npy"), encoder.transform(data))
