import numpy as np
import pytest

from m1pipe.plots import heatmap, style


def axes():
    return style.panels()[1][0, 0]


def test_correlations_are_pearsons_and_constant_genes_have_none():
    X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    X[:, 2] = 7.1
    found = heatmap.correlation_of(X)
    kept = [0, 1, 3]
    expected = np.corrcoef(X[:, kept].T)
    np.testing.assert_allclose(found[np.ix_(kept, kept)], expected, atol=1e-6)
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()


def test_the_clustering_brings_blocks_together():
    rng = np.random.default_rng(1)
    block = np.arange(30) % 3
    X = rng.normal(size=(200, 3))[:, block] + 0.3 * rng.normal(size=(200, 30))
    order = heatmap.cluster_order(heatmap.correlation_of(X))
    assert sorted(order) == list(range(30))
    assert np.count_nonzero(np.diff(block[order])) == 2
    np.testing.assert_array_equal(heatmap.cluster_order(np.eye(2)), [0, 1])


def test_correlations_are_drawn_from_minus_one_to_one():
    r = np.array([[1, 0.5], [0.5, 1]])
    ax = heatmap.plot_correlation(axes(), r, ["a", "b"], title="real")
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), r)
    assert image.get_clim() == (-1, 1)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    many = heatmap.plot_correlation(axes(), np.eye(61), [f"g{i}" for i in range(61)], title="")
    assert len(many.get_yticks()) == 0


def test_a_way_is_drawn_as_changes_from_its_start():
    X = np.array([[1.0, 5.0], [2.0, 4.0], [4.0, 1.0]])
    share = np.array([0, 0.5, 1])
    ax = heatmap.plot_way(axes(), X, share, ["up", "down"], unit="log2(TPM + 1)", ends=("a", "b"))
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), [[0, 1, 3], [0, -1, -4]])
    assert image.get_clim() == (-4, 4)
    assert image.get_extent()[:2] == pytest.approx([-0.25, 1.25])
    assert ax.get_xlabel() == "share of the way from a to b"
    assert ax.figure.axes[1].get_ylabel() == "change from a (log2(TPM + 1))"
