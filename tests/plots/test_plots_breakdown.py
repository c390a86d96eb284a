import numpy as np
import pandas as pd

from m1pipe.plots import breakdown, style


def axes():
    return style.panels()[1][0, 0]


def test_label_efficiency_is_a_share_of_the_yardstick_at_the_same_number():
    curve = pd.DataFrame(
        {
            "model": ["mean", "a", "a"] * 2,
            "n_train": [20] * 3 + [100] * 3,
            "fold": [0, 0, 1] * 2,
            "value": [2.0, 1.0, 1.4, 4.0, 1.0, 1.4],
        }
    )
    ax = breakdown.plot_label_efficiency(
        axes(), curve, ["a"], yardstick="mean", label="share", colours={"a": "red"}
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
    ax = breakdown.plot_label_efficiency(
        axes(), curve, names, yardstick="mean", label="share", colours=colours
    )
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.lines[:6]}
    assert len(looks) == 6


def test_the_histogram_counts_every_target_once():
    r2 = {"a": np.array([-3.0, -0.2, 0.5, 0.5, 1.0, np.nan])}
    ax = breakdown.plot_r2_histogram(axes(), r2, colours={"a": "red"})
    counts, edges, _ = ax.patches[0].get_data()
    assert counts.sum() == 5
    assert counts[0] == 1  # below the lowest, counted there
    assert counts[np.searchsorted(edges, 0.5, side="right") - 1] == 2
