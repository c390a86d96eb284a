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
    ax = comparison.plot_ladder(
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


def test_fold_pairs_join_the_same_fold():
    ax = comparison.plot_fold_pairs(axes(), FOLDS, ["a", "b"], label="loss")
    lines = [tuple(line.get_ydata()) for line in ax.lines]
    assert lines == [(1.0, 0.5), (2.0, 1.5), (3.0, 4.0), (2.0, 2.0)]


def test_differences_show_interval_zero_and_points():
    table = pd.DataFrame({"name": ["a - b"], "difference": -1.0, "ci_low": -2.0, "ci_high": 0.5})
    points = [np.array([-1.5, -0.5])]
    ax = comparison.plot_differences(axes(), table, label="difference", points=points)
    zero, dots, bar, middle = (line.get_xdata() for line in ax.lines)
    np.testing.assert_array_equal(zero, [0, 0])
    np.testing.assert_array_equal(dots, points[0])
    np.testing.assert_array_equal(bar, [-2.0, 0.5])
    np.testing.assert_array_equal(middle, [-1.0])


def test_many_names_are_turned_so_that_they_do_not_meet():
    names = [f"a_long_name_{i}" for i in range(9)]
    folds = pd.DataFrame({"model": names, "repeat": 0, "fold": 0, "loss": range(9)})
    figure, panels = style.panels(width=9, height=3)
    ax = comparison.plot_fold_pairs(panels[0, 0], folds, names, label="loss")
    figure.draw_without_rendering()
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {30.0}
