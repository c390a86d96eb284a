import numpy as np
import pandas as pd
import pytest

from m1pipe.plots import style, synthetic

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
    ax = synthetic.plot_calibrated(axes(), table, list(COLOURS), colours=COLOURS)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["gamma", "mean KS"]
    filled, hollow = ax.lines[0], ax.lines[1]
    np.testing.assert_allclose(filled.get_xdata(), [0.5])
    np.testing.assert_allclose(hollow.get_xdata(), [synthetic.SHOWN[1]])
    assert hollow.get_markerfacecolor() == "white"
    low, high = ax.get_ylim()
    assert low > high  # the first score is on top


def test_agreement_has_the_line_of_equals_and_leaves_gaps_out():
    real, made = np.array([0.0, 1, np.nan]), np.array([0.5, 2, 3])
    ax = synthetic.plot_agreement(axes(), real, made, title="means", unit="mean")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), ax.lines[1].get_ydata())
    many = np.random.default_rng(0).normal(size=(2, 4000))
    ax = synthetic.plot_agreement(axes(), *many, title="r", unit="r")
    assert len(ax.collections) == 1


def test_components_of_one_dimension_are_drawn_too():
    places = np.random.default_rng(0).normal(size=(30, 1))
    ax = synthetic.plot_components(axes(), places, places + 1, title="samples")
    assert [len(line.get_xdata()) for line in ax.lines] == [30, 30]
    assert (ax.lines[0].get_ydata() == 0).all()


def test_ks_of_all_genes_is_counted():
    ks = np.linspace(0.05, 0.9, 70)
    ax = synthetic.plot_ks(axes(), ks, title="KS", ceiling=0.1)
    assert sum(patch.get_height() for patch in ax.patches) == 70
    assert ax.lines[0].get_xdata()[0] == 0.1


UNIT = "log2(TPM + 1)"


def bars(ax):
    return [patch.get_data() for patch in ax.patches]


def test_bars_are_shares_of_all_samples_over_common_edges():
    rng = np.random.default_rng(0)
    a, b = 5 + rng.normal(size=300), 6 + rng.normal(size=200)
    (real, made) = bars(synthetic.plot_gene(axes(), a, b, title="g", unit=UNIT))
    np.testing.assert_array_equal(real.edges, made.edges)
    assert (real.edges[0], real.edges[-1]) == (min(a.min(), b.min()), max(a.max(), b.max()))
    assert real.values.sum() == pytest.approx(100) and made.values.sum() == pytest.approx(100)
    np.testing.assert_allclose(made.values, np.histogram(b, made.edges)[0] / 2)


def test_many_zeros_are_written_not_drawn():
    a, b = np.r_[np.zeros(70), np.linspace(1, 2, 30)], np.r_[np.zeros(10), np.linspace(1, 2, 90)]
    ax = synthetic.plot_gene(axes(), a, b, title="g", unit=UNIT)
    assert ax.texts[0].get_text() == "zeros:\n70% real\n10% synthetic"
    assert bars(ax)[0].values.sum() == pytest.approx(30)
    assert bars(ax)[0].edges[0] == 1


def test_a_gene_that_is_always_zero_can_be_drawn():
    ax = synthetic.plot_gene(axes(), np.zeros(9), np.zeros(9), title="g", unit=UNIT)
    assert ax.texts[0].get_text().startswith("zeros:\n100% real")


def test_means_variances_and_their_ratio_are_those_of_the_genes():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(80, 40)) * np.linspace(1, 2, 40) + np.arange(40)
    made = 0.5 * (real - real.mean(0)) + real.mean(0)
    made[:, 0] = 3.0
    ax = synthetic.plot_mean_variance(axes(), real, made, unit=UNIT)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.c_[real.mean(0), real.var(0)])
    assert len(ax.lines[2].get_xydata()) == 39
    assert ax.get_yscale() == "log"
    ax = synthetic.plot_variance_ratio(axes(), real, made, unit=UNIT)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0.25)
    np.testing.assert_allclose(ax.lines[2].get_ydata(), 0.25)
