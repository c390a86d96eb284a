from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from m1pipe.errors import InputError
from m1pipe.figures import synthetic
from m1pipe.figures.samples import load_pair


@pytest.fixture(scope="module")
def pair(expression):
    return load_pair(expression(90, 20), expression(60, 20, seed=1), label="tissue")


def test_with_labels_there_is_a_panel_a_side_with_the_same_limits(pair):
    figure = synthetic.augmentation(pair)
    real, made = figure.axes
    assert (real.get_title(loc="left"), made.get_title(loc="left")) == ("real", "synthetic")
    assert real.get_xlim() == made.get_xlim() and real.get_ylim() == made.get_ylim()
    assert figure.get_suptitle() == "Real and synthetic samples, PCA fitted to the real samples"


def test_the_title_says_where_both_were_fitted_together_and_what_was_drawn(pair):
    alone = replace(pair, labels=None, drawn="90 of 900 real samples drawn, seed 0")
    figure = synthetic.augmentation(alone, "mds")
    first, second = figure.get_suptitle().splitlines()
    assert first == "Real and synthetic samples, MDS fitted to both together"
    assert second == alone.drawn
    assert len(figure.axes) == 1


def test_genes_go_from_the_closest_to_the_furthest(pair):
    figure = synthetic.gene_distributions(pair)
    ks = [ks_2samp(pair.real[:60, j], pair.synthetic[:, j]).statistic for j in range(20)]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    shown = [title.split(" (KS ") for title in titles]
    steps = np.linspace(0, 19, 9).round().astype(int)
    assert [value for _, value in shown] == [f"{value:.2f})" for value in np.sort(ks)[steps]]
    for name, value in shown:
        assert value == f"{ks[pair.genes.tolist().index(name)]:.2f})"
    figure = synthetic.gene_distributions(pair, pair.genes[[4, 2]].tolist())
    assert figure.axes[0].get_title(loc="left").startswith(pair.genes[4])
    with pytest.raises(InputError, match="1 to 36; found 0"):
        synthetic.gene_distributions(pair, [])


def test_correlations_stand_in_one_order(pair):
    figure = synthetic.correlations(pair, max_genes=8)
    real, made, difference = (ax.images[0].get_array() for ax in figure.axes[:3])
    chosen = np.argsort(-pair.real.var(axis=0), kind="stable")[:8]
    assert sorted(real[0]) == pytest.approx(
        sorted(np.corrcoef(pair.real[:, chosen].T)[chosen == _first(figure, pair)][0]), abs=1e-5
    )
    np.testing.assert_allclose(difference, made - real)
    rms = np.sqrt(np.mean((made - real)[np.triu_indices(8, 1)] ** 2))
    assert figure.axes[2].get_title(loc="left") == f"difference (RMS {rms:.3f})"
    flat = replace(pair, real=np.ones_like(pair.real))
    with pytest.raises(InputError, match="at least 2 that vary"):
        synthetic.correlations(flat)


def _first(figure, pair):
    name = figure.axes[0].get_yticklabels()[0].get_text()
    return pair.genes.tolist().index(name)


def test_mean_and_variance_have_two_panels(pair):
    figure = synthetic.mean_variance(pair)
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "variance (log2(normalized + 1), squared)",
        "variance, synthetic / real",
    ]
