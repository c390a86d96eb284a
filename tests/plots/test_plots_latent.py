import numpy as np

from m1pipe.plots import latent, style


def axes():
    return style.panels()[1][0, 0]


def test_units_fall_and_the_threshold_is_drawn():
    ax = latent.plot_unit_spectrum(axes(), [[0.1, 3.0, 0.0]], threshold=0.05, label="KL (nats)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3.0, 0.1, 0.0])
    assert set(ax.lines[1].get_ydata()) == {0.05}
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylabel() == "KL (nats)"


def test_many_runs_are_drawn_as_their_median():
    many = [[3.0 + i, 1.0] for i in range(11)]
    ax = latent.plot_unit_spectrum(axes(), many, threshold=0.05, label="KL (nats)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [8.0, 1.0])
    pairs = {"vae": [(i / 10, 0.5) for i in range(11)]}
    ax = latent.plot_reconstruction(axes(), pairs, label="R2", colours={"vae": "blue"})
    assert [tuple(line.get_xdata()) for line in ax.lines] == [(0.5,), (0.5,)]


def test_only_the_first_run_of_a_name_enters_the_legend():
    ax = axes()
    latent.plot_unit_spectrum(ax, [[1, 2], [2, 3]], threshold=0.05, label="KL", name="vae")
    assert ax.get_legend_handles_labels()[1] == ["vae"]


def test_every_run_stands_beside_its_pca():
    scores = {"vae": [(0.3, 0.4), (0.35, 0.4)], "ae": [(0.5, 0.45)]}
    ax = latent.plot_reconstruction(
        axes(), scores, label="R2", colours={"vae": "blue", "ae": "red"}
    )
    drawn = [tuple(line.get_xdata()) for line in ax.lines]
    assert drawn == [(0.4, 0.4), (0.3, 0.35), (0.45,), (0.5,)]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["vae", "ae"]
