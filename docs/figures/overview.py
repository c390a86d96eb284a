"""Draw the figure of README: what the M1 pipeline is, and its ladder on a real set.

Used as `python docs/figures/overview.py CV docs/figures/overview.svg`, where CV is the
cross-validation of docs/results/paired_scmixology.md.
"""

import sys

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from m1pipe.evaluation.result import fold_losses
from m1pipe.plots import comparison, style
from m1pipe.reports.figures import model_colours
from m1pipe.reports.files import read_result

# Middle (x, y), width, height, words, colour
BOXES = (
    (0.16, 0.78, 0.28, 0.26, "many samples,\nno labels:\ngenes", style.PALETTE[2]),
    (0.16, 0.30, 0.28, 0.26, "few samples,\nlabelled:\ngenes", style.PALETTE[3]),
    (0.55, 0.78, 0.22, 0.20, "encoder\n(VAE)", style.PALETTE[0]),
    (0.55, 0.30, 0.22, 0.20, "latents", style.PALETTE[0]),
    (0.88, 0.30, 0.20, 0.26, "isoforms,\ndisease,\ncell type", style.PALETTE[1]),
)
# From (x, y) to (x, y), words beside it
ARROWS = (
    (0.315, 0.78, 0.425, 0.78, "train"),
    (0.55, 0.67, 0.55, 0.41, "freeze"),
    (0.315, 0.30, 0.425, 0.30, "encode"),
    (0.675, 0.30, 0.765, 0.30, "head"),
)


def draw_pipeline(ax: Axes) -> None:
    """Boxes and arrows of the M1 pipeline."""
    ax.set(xlim=(0, 1), ylim=(0.08, 1), title="M1")
    ax.set_axis_off()
    for x, y, width, height, words, colour in BOXES:
        corner = (x - width / 2, y - height / 2)
        look = {"facecolor": colour, "alpha": 0.25, "edgecolor": colour}
        ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.01", **look))
        ax.text(x, y, words, ha="center", va="center", fontsize=8.5)
    for x0, y0, x1, y1, words in ARROWS:
        ax.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": style.INK})
        down = x0 == x1
        where = {"ha": "left" if down else "center", "va": "center" if down else "bottom"}
        at = ((x0 + x1) / 2 + 0.02 * down, (y0 + y1) / 2 + 0.02 * (not down))
        ax.text(*at, words, fontsize=8, color=style.MUTED, **where)


def draw_ladder(ax: Axes, folder: str) -> None:
    """Every model's error in every fold, as a share of that of the training mean."""
    result = read_result(folder)
    folds = fold_losses(result).set_index(["repeat", "fold"])
    mean = folds.loc[folds["model"] == "mean", "loss"]
    folds["loss"] /= mean.reindex(folds.index).to_numpy()
    folds = folds.reset_index()
    order = folds.groupby("model")["loss"].mean().sort_values().index.drop("mean")
    comparison.plot_ladder(
        ax,
        pd.DataFrame(folds),
        list(order),
        label="test error, share of that of the training mean",
        colours=model_colours(result),
    )
    ax.set_title("against what is simpler: 990 cells, 1,505 isoforms")


def main(folder: str, out: str) -> None:
    """Draw both panels and save them."""
    figure, axes = style.panels(1, 2, width=8.4, height=3.1)
    with style.styled():
        draw_pipeline(axes[0, 0])
        draw_ladder(axes[0, 1], folder)
    style.save(figure, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
