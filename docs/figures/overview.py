"""Draw the figure of README: what the M1 pipeline is, and where it pays.

Used as `python docs/figures/overview.py docs/figures/overview.svg`; the numbers are those of the
tables in docs/results.
"""

import re
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from m1pipe.plots import style

RESULTS = Path(__file__).resolve().parent.parent / "results"
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
# Name in the tables: what it is, its colour and mark
MODELS = {
    "vae": ("vae: M1", style.PALETTE[0], "o"),
    "pca": ("pca: PCA of the same samples", style.PALETTE[3], "s"),
    "pca_linear": ("pca: PCA of the same samples", style.PALETTE[3], "s"),
    "logistic": ("logistic, ridge: on the genes", style.MUTED, "^"),
    "ridge": ("logistic, ridge: on the genes", style.MUTED, "^"),
}


def draw_pipeline(ax: Axes) -> None:
    """Boxes and arrows of the M1 pipeline."""
    ax.set(xlim=(0, 1), ylim=(0.08, 1), title="The M1 model")
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


def read_table(page: str, heading: str) -> tuple[list[int], dict[str, list[float]]]:
    """Numbers of labels, and every model's losses, of the table with sizes below a heading."""
    text = (RESULTS / page).read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1]
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if "|" in line]
    start = next(i for i, cells in enumerate(lines) if cells[0] == "model" and cells[-2] == "300")
    sizes = [int(re.findall(r"\d+", cell.replace(",", ""))[0]) for cell in lines[start][1:]]
    losses = {}
    for cells in lines[start + 2 :]:
        if cells[0] == "model" or len(cells) != len(sizes) + 1:
            break
        losses[cells[0].split(" ")[0]] = [float(cell.split(" ")[0]) for cell in cells[1:]]
    return sizes, losses


def draw_losses(ax: Axes, page: str, heading: str, models: tuple[str, ...]) -> None:
    """Each model's loss by the number of labels."""
    sizes, losses = read_table(page, heading)
    for name in models:
        label, colour, mark = MODELS[name]
        ax.plot(sizes, losses[name], color=colour, marker=mark, markersize=4.5, label=label)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("labelled samples")
    ax.grid(axis="y")


def main(out: str) -> None:
    """Draw the panels and save them."""
    figure, axes = style.panels(1, 3, width=10.5, height=3.1)
    with style.styled():
        draw_pipeline(axes[0, 0])
        few, many = axes[0, 1:]
        few_labels = "Few labels of cells, encoders of four other donors"
        draw_losses(few, "sc_pbmc_kang12k.md", few_labels, ("logistic", "pca", "vae"))
        few.set(
            title="It pays: cell types of new donors",
            ylabel="log loss (lower is better)",
            ylim=(0, None),
        )
        few.legend()
        draw_losses(
            many,
            "paired_scmixology.md",
            "Own genes, and few labels",
            ("ridge", "pca_linear", "vae"),
        )
        error = "error / error of the training mean"
        many.set(title="It hardly pays: isoform levels", ylabel=error, ylim=(0.6, 1))
    style.save(figure, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
