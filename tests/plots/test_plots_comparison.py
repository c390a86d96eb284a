import numpy as np
import pandas as pd

from m1pipe.plots import comparison, style

FOLDS = pd.DataFrame(
    {
        "model": ["a", "a", "a", "b", "b", "b"],
        "repeat": 0,
        "fold": [0, 1, 2] * 2,
        "loss": [1.0, 2.0, 3.0, 0.5, 1.5, 4.0],
    }
)


def axes():
    return style.panels()[1][0, 0]


def test_ladder_shows_every_fold_and_the_mean_from_the_top():
    ax = comparison.plot_losses(
        axes(),
        FOLDS,
        ["b", "a"],
        label="loss",
        colours={"a": "red", "b": "blue"},
        reference=1.0,
    )
    dots, mean = ax.lines[0].get_xdata(), ax.lines[1].get_xdata()
    np.testing.assert_array_equal(dots, [0.5, 1.5, 4.0])
    np.testing.assert_allclose(mean, [2.0])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "a"]
    low, high = ax.get_ylim()
    assert low > high  # the first model is on top


def test_differences_show_interval_zero_and_points():
    table = pd.DataFrame({"name": ["a - b"], "difference": -1.0, "ci_low": -2.0, "ci_high": 0.5})
    points = [np.array([-1.5, -0.5])]
    ax = comparison.plot_differences(axes(), table, label="difference", points=points)
    zero, dots, bar, middle = (line.get_xdata() for line in ax.lines)
    np.testing.assert_array_equal(zero, [0, 0])
    np.testing.assert_array_equal(dots, points[0])
    np.testing.assert_array_equal(bar, [-2.0, 0.5])
    np.testing.assert_array_equal(middle, [-1.0])


def test_long_names_lose_their_middle_only():
    names = ["x" * 40 + "_one", "x" * 40 + "_two", "short"]
    folds = pd.DataFrame({"model": names, "repeat": 0, "fold": 0, "loss": range(3)})
    colours = dict.fromkeys(names, "grey")
    ax = comparison.plot_losses(axes(), folds, names, label="loss", colours=colours)
    shown = [tick.get_text() for tick in ax.get_yticklabels()]
    assert max(map(len, shown)) == comparison.LONGEST_NAME
    assert len(set(shown)) == 3
    assert shown[0].endswith("_one") and shown[2] == "short"


def test_label_efficiency_is_a_share_of_the_baseline_at_the_same_number():
    curve = pd.DataFrame(
        {
            "model": ["mean", "a", "a"] * 2,
            "n_train": [20] * 3 + [100] * 3,
            "fold": [0, 0, 1] * 2,
            "value": [2.0, 1.0, 1.4, 4.0, 1.0, 1.4],
        }
    )
    ax = comparison.plot_label_efficiency(
        axes(), curve, ["a"], baseline="mean", label="share", colours={"a": "red"}
    )
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [20, 100])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.6, 0.3])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["20", "100"]


def test_models_of_one_colour_differ_by_dashes_and_marks():
    names = list("abcdef")
    curve = pd.DataFrame(
        {"model": ["mean", *names] * 2, "n_train": [10] * 7 + [20] * 7, "value": np.arange(1, 15.0)}
    )
    colours = dict.fromkeys(names, "grey")
    ax = comparison.plot_label_efficiency(
        axes(), curve, names, baseline="mean", label="share", colours=colours
    )
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.lines[:6]}
    assert len(looks) == 6


def test_the_histogram_counts_every_target_once():
    r2 = {"a": np.array([*[-3.0] * 300, -0.5, -0.2, 0.5, 0.5, 1.0, np.nan])}
    ax = comparison.plot_r2_histogram(axes(), r2, colours={"a": "red"})
    outline, bar = ax.patches
    counts, edges, _ = outline.get_data()
    assert counts.sum() == 4
    assert counts[np.searchsorted(edges, 0.5, side="right") - 1] == 2
    assert bar.get_height() == 301  # one bar, which does not press down the others
    assert bar.get_x() + bar.get_width() < comparison.LOWEST_R2
    assert ax.get_ylim()[1] < 3
    assert [text.get_text().strip() for text in ax.texts] == ["301"]
    (label,) = (text.get_text() for text in ax.get_legend().get_texts())
    assert label == "a (median -3.00, 1% above 0)"


def bins(model: str, n: int) -> pd.DataFrame:
    values = {"n": [n, 5000], "predicted": [0.004, 0.5], "observed": [0.0, 0.25]}
    return pd.DataFrame(values).assign(model=model)


def test_one_line_a_model_without_bins_of_few_cells():
    table = pd.concat([bins("a", 100), bins("b", comparison.FEWEST_CELLS - 1)])
    ax = comparison.plot_calibration(
        style.panels()[1][0, 0], table, ["a", "b"], colours={"a": "red", "b": "red"}
    )
    diagonal, first, second = ax.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(first.get_xdata(), [0.004, 0.5])
    np.testing.assert_array_equal(second.get_ydata(), [0.25])
    assert first.get_linestyle() != second.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_scales_are_square_roots_from_0_to_1():
    ax = comparison.plot_calibration(
        style.panels()[1][0, 0], bins("a", 100), ["a"], colours={"a": "red"}
    )
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)
    middle = ax.transScale.transform((0.25, 0.81))
    np.testing.assert_allclose(middle, [0.5, 0.9])
    back = ax.transScale.inverted().transform(middle)
    np.testing.assert_allclose(back, [0.25, 0.81])
