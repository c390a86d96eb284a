import base64
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from m1pipe.plots import style

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB
DEFICIENCIES = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def draw():
    figure, axes = style.panels(width=4, height=2)
    with style.styled():
        axes[0, 0].plot([0, 1], [0, 1])
        axes[0, 0].set_title("a title")
    return figure


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_first_four_colours_stay_apart_for_the_colour_blind(deficiency):
    linear = np.array([to_rgb(c) for c in style.PALETTE[:4]]) ** 2.2
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(4, 1)]
    assert gaps.min() > 0.15
    same = np.clip(np.array([to_rgb("#00A000"), to_rgb("#B05000")]) ** 2.2, 0, 1)
    confused = np.clip(same @ np.array(DEFICIENCIES["deuteranopia"]).T, 0, 1) ** (1 / 2.2)
    assert np.linalg.norm(confused[0] - confused[1]) < 0.35  # the yardstick itself can fail


def test_the_same_figure_gives_the_same_svg():
    first, second = style.svg_bytes(draw()), style.svg_bytes(draw())
    assert first == second
    assert ElementTree.fromstring(first).tag.endswith("svg")


def test_data_uri_holds_the_figure_itself():
    kind, payload = style.data_uri(draw()).split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(payload) == style.svg_bytes(draw())


@pytest.mark.parametrize("name", ["figure.svg", "figure.png", "figure.pdf"])
def test_saves_by_ending(tmp_path, name):
    style.save(draw(), tmp_path / name)
    head = (tmp_path / name).read_bytes()[:8]
    assert {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[name[-3:]] in head


def test_global_settings_are_left_alone():
    before = dict(mpl.rcParams)
    style.svg_bytes(draw())
    assert dict(mpl.rcParams) == before


def test_colours_keep_their_place_and_never_run_out():
    many = [f"m{i}" for i in range(12)]
    found = style.colours(many)
    assert list(found) == many
    assert len({found[name] for name in many[: len(style.PALETTE)]}) == len(style.PALETTE)
    assert found["m11"] == style.MUTED
    assert style.colours(many[:2]) == {name: found[name] for name in many[:2]}
