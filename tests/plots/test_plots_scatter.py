import numpy as np
import pytest
from matplotlib.colors import to_hex

from m1pipe.plots import scatter, style

AXES = ("PC 1", "PC 2")


def axes():
    return style.panels()[1][0, 0]


def places(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


def test_every_class_has_its_colour_its_number_and_its_centroid():
    X, labels = places(30), np.array(["b", "a", ""] * 10, dtype=object)
    ax = scatter.plot_classes(axes(), X, labels, axes=AXES)
    drawn = {line.get_label(): line for line in ax.lines if line.get_label()[0] != "_"}
    assert set(drawn) == {"no label (10)", "a (10)", "b (10)"}
    assert drawn["a (10)"].get_color() == style.PALETTE[0]
    np.testing.assert_array_equal(drawn["a (10)"].get_xydata(), X[1::3])
    centroids = [line.get_xydata()[0] for line in ax.lines if line.get_markersize() == 9]
    np.testing.assert_allclose(centroids, [X[1::3].mean(0), X[0::3].mean(0)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == AXES


def test_many_classes_differ_by_colour_or_mark():
    labels = [f"c{i:02}" for i in range(54)] * 2
    ax = scatter.plot_classes(axes(), places(108), labels, axes=AXES, centroids=False)
    looks = {(to_hex(line.get_color()), line.get_marker()) for line in ax.lines}
    assert len(looks) == 54
    assert len(ax.get_legend().get_texts()) == 54
    ax = scatter.plot_classes(axes(), places(100), [f"c{i}" for i in range(100)], axes=AXES)
    assert ax.get_legend() is None and ax.texts[0].get_text() == "100 classes"


def test_an_order_keeps_colours_where_a_class_is_absent():
    ax = scatter.plot_classes(
        axes(), places(4), ["b"] * 4, axes=AXES, order=["a", "b"], counts=False
    )
    assert [len(line.get_xdata()) for line in ax.lines] == [0, 4, 1]
    assert ax.lines[1].get_color() == style.PALETTE[1]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]


def test_numbers_are_shades_and_missing_ones_grey():
    X, values = places(6), [1.0, 2.0, np.nan, 4.0, 5.0, 6.0]
    ax = scatter.plot_numbers(axes(), X, values, axes=AXES, label="age (years)")
    shades = ax.collections[0]
    np.testing.assert_array_equal(shades.get_array(), [1, 2, 4, 5, 6])
    assert shades.get_cmap().name == style.LEVELS
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), X[[2]])
    assert ax.figure.axes[1].get_ylabel() == "age (years)"


@pytest.mark.parametrize("n", [3, 40])
def test_both_sides_are_drawn_whole_and_in_turns(n):
    real, synthetic = places(n), places(50, seed=1)
    ax = scatter.plot_sides(axes(), real, synthetic, axes=AXES)
    for colour, X in ((style.PALETTE[0], real), (style.PALETTE[1], synthetic)):
        drawn = [line.get_xydata() for line in ax.lines if line.get_color() == colour]
        assert len(drawn) == 8
        found = np.concatenate(drawn)
        assert sorted(map(tuple, found)) == sorted(map(tuple, X))
    assert [line.get_color() for line in ax.lines[:2]] == list(style.PALETTE[:2])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [f"real ({n})", "synthetic (50)"]


def test_names_take_more_room_the_longer_and_the_more_they_are():
    few, long = ["a", "b"], ["a", "b" * 30]
    many = [f"c{i}" for i in range(54)]
    assert scatter.legend_width(few) < scatter.legend_width(long) < 4
    assert scatter.legend_width(many) > 2 * scatter.legend_width(few)
    assert scatter.legend_width(["", "a"]) > scatter.legend_width(few)
    assert scatter.legend_width([f"c{i}" for i in range(300)]) == 1
