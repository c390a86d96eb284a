import numpy as np
import pandas as pd

from m1pipe.plots import style, sweep


def test_trials_have_a_colour_each_and_their_names():
    epochs = np.arange(1, 21)
    tables = {
        f"{i}: n_latent {i}": pd.DataFrame(
            {"epoch": epochs, "val_loss": 10 + i - epochs / 10, "train_loss": 5 + i - epochs / 10}
        )
        for i in range(sweep.MOST_NAMED + 2)
    }
    axes = sweep.plot_trial_curves(style.panels(1, 3)[1][0], tables, name="sweep")
    for ax, column in zip(axes[:2], ("val_loss", "train_loss"), strict=True):
        assert len({str(line.get_color()) for line in ax.lines}) == len(tables)
        for line, table in zip(ax.lines, tables.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), table[column])
        low, high = ax.get_ylim()
        assert low < min(t[column].min() for t in tables.values()) < high
    named = [text.get_text() for text in axes[2].get_legend().get_texts()]
    assert named == list(tables)[: sweep.MOST_NAMED]
    assert axes[2].get_legend().get_title().get_text() == "and 2 more"
