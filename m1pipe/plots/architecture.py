"""The layers of a variational autoencoder as a diagram, with their widths."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from m1pipe.plots.style import INK, MUTED, PALETTE

PARTS = {
    "encoder": PALETTE[0],
    "mean": PALETTE[3],
    "log-variance": PALETTE[1],
    "latent": PALETTE[5],
    "decoder": PALETTE[2],
    "condition": PALETTE[4],
}
_DARK = ("encoder", "log-variance", "latent")
_THICK = 0.5
_TALL, _SHORT = 2.6, 0.5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the diagram of a variational autoencoder shows.

    Attributes
    ----------
    n_genes : int
    encoder, decoder : tuple of int
        Widths of the hidden layers, in the order of the data.
    n_latent : int
    n_classes : int
        Of what a conditional model is told; 0 for none.
    n_outputs : int
        Values that the decoder gives for every gene.
    likelihood : str
        In words.
    is_variational : bool
        Whether there is a log-variance: not in a plain autoencoder.
    has_skip : bool
        Whether linear paths lead around the hidden layers.
    """

    n_genes: int
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    n_latent: int
    n_classes: int = 0
    n_outputs: int = 1
    likelihood: str = ""
    is_variational: bool = True
    has_skip: bool = False


@dataclass(frozen=True)
class _Box:
    """One layer: its part, place, height and what is written on it."""

    part: str
    column: float
    row: float
    height: float
    text: str
    below: str

    @property
    def left(self) -> tuple[float, float]:
        return self.column - _THICK / 2, self.row

    @property
    def right(self) -> tuple[float, float]:
        return self.column + _THICK / 2, self.row


def n_columns(shape: Shape) -> int:
    """Layers from left to right, which decide how wide the diagram should be."""
    return len(shape.encoder) + len(shape.decoder) + 4


def plot_architecture(ax: Axes, shape: Shape) -> Axes:
    """Draw the layers from the genes through the latents and back, coloured by part.

    Heights grow with the logarithm of the widths, which are written on the layers.

    Parameters
    ----------
    ax : Axes
        Where to draw; some 0.9 inches for each of `n_columns`.
    shape : Shape

    Returns
    -------
    Axes
        The same axes.
    """
    boxes = _boxes(shape)
    for box in boxes:
        _draw_box(ax, box)
    _connect(ax, boxes, shape)
    if shape.n_classes:
        _draw_condition(ax, boxes, shape)
    present = {box.part for box in boxes} | ({"condition"} if shape.n_classes else set())
    handles = [Patch(color=colour, label=part) for part, colour in PARTS.items() if part in present]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3)
    last = n_columns(shape) - 1
    ax.set(xlim=(-0.6, last + 0.6), ylim=(-2.3, 2.2))
    ax.set_axis_off()
    return ax


def _boxes(shape: Shape) -> list[_Box]:
    """All layers, left to right; mean and log-variance stand above one another."""
    high = np.log(max(shape.n_genes, *shape.encoder, *shape.decoder, 2))

    def height(width: int) -> float:
        return float(_SHORT + (_TALL - _SHORT) * np.log(max(width, 1)) / high)

    def layer(part: str, column: int, width: int, below: str, row: float = 0.0) -> _Box:
        small = min(height(width), 1.5) if row else height(width)
        return _Box(part, column, row, small, f"{width:,}", below)

    boxes = [layer("encoder", 0, shape.n_genes, "genes")]
    for width in shape.encoder:
        boxes.append(layer("encoder", len(boxes), width, "hidden"))
    column = len(boxes)
    if shape.is_variational:
        boxes.append(layer("mean", column, shape.n_latent, "mean", row=0.95))
        boxes.append(layer("log-variance", column, shape.n_latent, "log-variance", row=-0.95))
    else:
        boxes.append(layer("mean", column, shape.n_latent, "code"))
    boxes.append(layer("latent", column + 1, shape.n_latent, "latent z"))
    for i, width in enumerate(shape.decoder):
        boxes.append(layer("decoder", column + 2 + i, width, "hidden"))
    times = f" x {shape.n_outputs}" if shape.n_outputs > 1 else ""
    place = column + 2 + len(shape.decoder)
    out = _Box("decoder", place, 0, height(shape.n_genes), f"{shape.n_genes:,}{times}", "genes")
    return [*boxes, out]


def _draw_box(ax: Axes, box: _Box) -> None:
    corner = (box.column - _THICK / 2, box.row - box.height / 2)
    style = "round,pad=0,rounding_size=0.06"
    patch = FancyBboxPatch(
        corner, _THICK, box.height, boxstyle=style, fc=PARTS[box.part], ec="none", zorder=2
    )
    ax.add_patch(patch)
    turned = 90 if len(box.text) > 3 else 0
    ink = "white" if box.part in _DARK else INK
    place = (box.column, box.row)
    ax.text(*place, box.text, ha="center", va="center", rotation=turned, zorder=3, color=ink)
    low = box.row - box.height / 2 - 0.08
    ax.text(box.column, low, box.below, ha="center", va="top", fontsize=7.5, color=MUTED)


def _connect(ax: Axes, boxes: Sequence[_Box], shape: Shape) -> None:
    """Arrows from every layer to the next, and the linear paths around them."""
    by_column: dict[float, list[_Box]] = {}
    for box in boxes:
        by_column.setdefault(box.column, []).append(box)
    columns = [by_column[column] for column in sorted(by_column)]
    for here, there in pairwise(columns):
        for start in here:
            for stop in there:
                _arrow(ax, start.right, stop.left)
    if shape.has_skip:
        middle = columns[1 + len(shape.encoder)]
        z = columns[2 + len(shape.encoder)][0]
        pairs = [(columns[0][0], middle[0], shape.encoder), (z, boxes[-1], shape.decoder)]
        for start, stop, between in pairs:
            if between:
                _around(ax, start, stop)


def _around(ax: Axes, start: _Box, stop: _Box) -> None:
    """A dashed path over the layers between, named."""
    top = 1.75
    xs = [start.column, start.column, stop.column, stop.column]
    ys = [start.row + start.height / 2, top, top, stop.row + stop.height / 2]
    ax.plot(xs[:3], ys[:3], color=MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    _arrow(ax, (xs[2], ys[2]), (xs[3], ys[3]))
    middle = (start.column + stop.column) / 2
    ax.text(middle, top + 0.06, "linear", ha="center", fontsize=7.5, color=MUTED)


def _draw_condition(ax: Axes, boxes: Sequence[_Box], shape: Shape) -> None:
    """The class, one-hot, beside the genes and beside the latents."""
    z = next(box for box in boxes if box.part == "latent")
    for box in (boxes[0], z):
        row = -1.95
        low = box.row - box.height / 2
        side = (_THICK * 1.3, 0.4)
        corner = (box.column - side[0] / 2, row - side[1] / 2)
        style = "round,pad=0,rounding_size=0.06"
        patch = FancyBboxPatch(corner, *side, boxstyle=style, fc=PARTS["condition"], ec="none")
        ax.add_patch(patch)
        ax.text(box.column, row, f"+ {shape.n_classes}", ha="center", va="center", zorder=3)
        _arrow(ax, (box.column, row + side[1] / 2), (box.column, low - 0.28))


def _arrow(ax: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            stop,
            arrowstyle="-|>",
            mutation_scale=8,
            color=INK,
            linewidth=0.8,
            zorder=1,
            shrinkA=1,
            shrinkB=1,
        )
    )
