"""What models hold lies in one order in memory, however it was made."""

import numpy as np
import pytest
from safetensors.numpy import load

from m1pipe.arrays import pack_arrays
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder.condition import Condition
from m1pipe.evaluation.outside import Rivals
from m1pipe.heads.features import FeatureMap
from m1pipe.heads.own_gene import OwnTerm
from m1pipe.pca import PCA
from m1pipe.synthesis.mixture import Mixture

LINE = np.arange(8, dtype=np.float32)[::2]
TURNED = np.arange(12, dtype=np.float32).reshape(4, 3).T
MODELS = {
    "rivals": Rivals("regression", 1.0, LINE, LINE, LINE, TURNED, TURNED, LINE),
    "pca": PCA(LINE, TURNED, LINE, LINE),
    "own genes": OwnTerm(LINE, LINE, LINE, TURNED),
    "features": FeatureMap(GeneTransform("none", LINE, LINE), TURNED),
    "normal scores": GeneTransform("normal_score", LINE, LINE, TURNED),
    "mixture": Mixture("full", LINE, TURNED, np.stack([TURNED.T] * 2).transpose(0, 2, 1)),
    "condition": Condition("tissue", ("a", "b", "c"), (1, 1, 1), TURNED),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_hold_arrays_row_by_row(name: str) -> None:
    assert not TURNED.flags.c_contiguous and not LINE.flags.c_contiguous
    held = {k: v for k, v in vars(MODELS[name]).items() if isinstance(v, np.ndarray)}
    assert any(array.ndim > 1 for array in held.values())
    for field, array in held.items():
        assert array.flags.c_contiguous, field
    if name != "mixture":
        given = [array for array in held.values() if array.ndim == 2]
        assert all((array == TURNED).all() for array in given)


def test_stored_arrays_come_back_row_by_row() -> None:
    again = load(pack_arrays({"turned": TURNED, "line": LINE, "number": np.float32(3)}))
    np.testing.assert_array_equal(again["turned"], TURNED)
    np.testing.assert_array_equal(again["line"], LINE)
    assert again["number"].shape == () and again["turned"].flags.c_contiguous
