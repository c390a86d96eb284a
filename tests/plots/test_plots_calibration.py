import numpy as np
import pandas as pd

from m1pipe.plots import calibration, style


def bins(model: str, n: int) -> pd.DataFrame:
    values = {"n": [n, 5000], "predicted": [0.004, 0.5], "observed": [0.0, 0.25]}
    return pd.DataFrame(values).assign(model=model)


def test_one_line_a_model_without_bins_of_few_cells():
    table = pd.concat([bins("a", 100), bins("b", calibration.FEWEST_CELLS - 1)])
    ax = calibration.plot_calibration(
        style.panels()[1][0, 0], table, ["a", "b"], colours={"a": "red", "b": "red"}
    )
    diagonal, first, second = ax.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(first.get_xdata(), [0.004, 0.5])
    np.testing.assert_array_equal(second.get_ydata(), [0.25])
    assert first.get_linestyle() != second.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_scales_are_square_roots_from_0_to_1():
    ax = calibration.plot_calibration(
        style.panels()[1][0, 0], bins("a", 100), ["a"], colours={"a": "red"}
    )
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)
    middle = ax.transScale.transform((0.25, 0.81))
    np.testing.assert_allclose(middle, [0.5, 0.9])
    back = ax.transScale.inverted().transform(middle)
    np.testing.assert_allclose(back, [0.25, 0.81])
