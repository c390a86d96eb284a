import numpy as np
import pytest

from m1pipe.plots import genes, style

UNIT = "log2(TPM + 1)"


def axes():
    return style.panels()[1][0, 0]


def bars(ax):
    return [patch.get_data() for patch in ax.patches]


def test_bars_are_shares_of_all_samples_over_common_edges():
    rng = np.random.default_rng(0)
    a, b = 5 + rng.normal(size=300), 6 + rng.normal(size=200)
    (real, made) = bars(genes.plot_gene(axes(), a, b, title="g", unit=UNIT))
    np.testing.assert_array_equal(real.edges, made.edges)
    assert (real.edges[0], real.edges[-1]) == (min(a.min(), b.min()), max(a.max(), b.max()))
    assert real.values.sum() == pytest.approx(100) and made.values.sum() == pytest.approx(100)
    np.testing.assert_allclose(made.values, np.histogram(b, made.edges)[0] / 2)


def test_many_zeros_are_written_not_drawn():
    a, b = np.r_[np.zeros(70), np.linspace(1, 2, 30)], np.r_[np.zeros(10), np.linspace(1, 2, 90)]
    ax = genes.plot_gene(axes(), a, b, title="g", unit=UNIT)
    assert ax.texts[0].get_text() == "zeros:\n70% real\n10% synthetic"
    assert bars(ax)[0].values.sum() == pytest.approx(30)
    assert bars(ax)[0].edges[0] == 1


def test_a_gene_that_is_always_zero_can_be_drawn():
    ax = genes.plot_gene(axes(), np.zeros(9), np.zeros(9), title="g", unit=UNIT)
    assert ax.texts[0].get_text().startswith("zeros:\n100% real")


def test_means_variances_and_their_ratio_are_those_of_the_genes():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(80, 40)) * np.linspace(1, 2, 40) + np.arange(40)
    made = 0.5 * (real - real.mean(0)) + real.mean(0)
    made[:, 0] = 3.0
    ax = genes.plot_mean_variance(axes(), real, made, unit=UNIT)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.c_[real.mean(0), real.var(0)])
    assert len(ax.lines[2].get_xydata()) == 39
    assert ax.get_yscale() == "log"
    ax = genes.plot_variance_ratio(axes(), real, made, unit=UNIT)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0.25)
    np.testing.assert_allclose(ax.lines[2].get_ydata(), 0.25)
