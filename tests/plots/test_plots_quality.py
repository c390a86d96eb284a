import numpy as np
import pandas as pd

from m1pipe.plots import quality, style

COLOURS = {"synthetic": "red", "copula": "blue"}


def axes():
    return style.panels()[1][0, 0]


def test_calibrated_scores_stand_in_rows_and_beyond_the_panel_they_are_hollow():
    table = pd.DataFrame(
        {
            "model": ["synthetic"] * 2 + ["copula"] * 2,
            "title": ["gamma", "mean KS"] * 2,
            "calibrated": [0.5, 4.0, 0.9, np.nan],
        }
    )
    ax = quality.plot_calibrated(axes(), table, list(COLOURS), colours=COLOURS)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["gamma", "mean KS"]
    filled, hollow = ax.lines[0], ax.lines[1]
    np.testing.assert_allclose(filled.get_xdata(), [0.5])
    np.testing.assert_allclose(hollow.get_xdata(), [quality.SHOWN[1]])
    assert hollow.get_markerfacecolor() == "white"
    low, high = ax.get_ylim()
    assert low > high  # the first score is on top


def test_agreement_has_the_line_of_equals_and_leaves_gaps_out():
    real, made = np.array([0.0, 1, np.nan]), np.array([0.5, 2, 3])
    ax = quality.plot_agreement(axes(), real, made, title="means", unit="mean")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), ax.lines[1].get_ydata())
    many = np.random.default_rng(0).normal(size=(2, 4000))
    ax = quality.plot_agreement(axes(), *many, title="r", unit="r")
    assert len(ax.collections) == 1


def test_components_of_one_dimension_are_drawn_too():
    places = np.random.default_rng(0).normal(size=(30, 1))
    ax = quality.plot_components(axes(), places, places + 1, title="samples")
    assert [len(line.get_xdata()) for line in ax.lines] == [30, 30]
    assert (ax.lines[0].get_ydata() == 0).all()


def test_ks_of_all_genes_is_counted():
    ks = np.linspace(0.05, 0.9, 70)
    ax = quality.plot_ks(axes(), ks, title="KS", ceiling=0.1)
    assert sum(patch.get_height() for patch in ax.patches) == 70
    assert ax.lines[0].get_xdata()[0] == 0.1
