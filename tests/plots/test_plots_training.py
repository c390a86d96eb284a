import numpy as np
import pandas as pd

from m1pipe.plots import style, training


def axes():
    return style.panels()[1][0, 0]


def history(n=50):
    epoch = np.arange(1, n + 1)
    return pd.DataFrame(
        {"epoch": epoch, "train_loss": 100.0 / epoch, "val_loss": 1 + 100.0 / epoch}
    )


def test_draws_training_and_validation_of_every_run():
    ax = training.plot_term(axes(), [history(), history(30)], "loss", title="loss", unit="nats")
    drawn = [line.get_ydata() for line in ax.lines]
    assert len(drawn) == 4
    np.testing.assert_array_equal(drawn[0], history()["train_loss"])
    np.testing.assert_array_equal(drawn[3], history(30)["val_loss"])
    assert ax.get_ylabel() == "nats"
    assert ax.get_xlabel() == "epoch"


def test_many_runs_are_drawn_as_their_median_and_range():
    runs = [history().assign(val_loss=float(i)) for i in range(11)]
    ax = training.plot_term(axes(), runs, "loss", title="loss", unit="nats")
    assert len(ax.lines) == 2  # one for training, one for validation
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), 5.0)
    heights = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.0, 10.0)


def test_a_term_that_was_not_recorded_is_said():
    ax = training.plot_term(axes(), [history()], "kl", title="KL", unit="nats")
    assert not ax.lines
    assert [text.get_text() for text in ax.texts] == ["not recorded"]


def test_a_term_of_nothing_but_nan_is_said():
    empty = history().assign(val_kl=np.nan)
    ax = training.plot_term(axes(), [empty], "kl", title="KL", unit="nats")
    assert [text.get_text() for text in ax.texts] == ["not recorded"]


def test_the_start_leaves_the_panel_and_the_rest_stays():
    late = history()[history()["epoch"] >= 5]
    ax = training.plot_term(axes(), [history()], "loss", title="loss", unit="nats")
    low, high = training.clip_start(ax, [history()], "loss").get_ylim()
    assert low < late["train_loss"].min() < late["val_loss"].max() < high < 100


def test_kept_epochs_are_marked():
    ax = training.mark_epochs(axes(), [7, 9])
    assert [line.get_xdata()[0] for line in ax.lines] == [7, 9]


def test_an_autoencoder_has_no_kl():
    for kl, said in ((0.0, "an autoencoder has none"), (np.nan, "not recorded")):
        panels = style.panels(1, 3)[1][0]
        table = history().assign(val_kl=kl, train_kl=kl)
        training.plot_history(panels, [table], name="ae")
        assert [text.get_text() for text in panels[2].texts] == [said]
    panels = style.panels(1, 3)[1][0]
    training.plot_history(panels, [history().assign(val_kl=np.arange(50))], name="vae")
    assert not panels[2].texts and len(panels[2].lines) == 1


def test_units_fall_and_the_threshold_is_drawn():
    ax = training.plot_unit_spectrum(axes(), [[0.1, 3.0, 0.0]], threshold=0.05, label="KL (nats)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3.0, 0.1, 0.0])
    assert set(ax.lines[1].get_ydata()) == {0.05}
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylabel() == "KL (nats)"


def test_many_runs_are_drawn_as_their_median():
    many = [[3.0 + i, 1.0] for i in range(11)]
    ax = training.plot_unit_spectrum(axes(), many, threshold=0.05, label="KL (nats)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [8.0, 1.0])
    pairs = {"vae": [(i / 10, 0.5) for i in range(11)]}
    ax = training.plot_reconstruction(axes(), pairs, label="R2", colours={"vae": "blue"})
    assert [tuple(line.get_xdata()) for line in ax.lines] == [(0.5,), (0.5,)]


def test_only_the_first_run_of_a_name_enters_the_legend():
    ax = axes()
    training.plot_unit_spectrum(ax, [[1, 2], [2, 3]], threshold=0.05, label="KL", name="vae")
    assert ax.get_legend_handles_labels()[1] == ["vae"]


def test_every_run_stands_beside_its_pca():
    scores = {"vae": [(0.3, 0.4), (0.35, 0.4)], "ae": [(0.5, 0.45)]}
    ax = training.plot_reconstruction(
        axes(), scores, label="R2", colours={"vae": "blue", "ae": "red"}
    )
    drawn = [tuple(line.get_xdata()) for line in ax.lines]
    assert drawn == [(0.4, 0.4), (0.3, 0.35), (0.45,), (0.5,)]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["vae", "ae"]
