from matplotlib.colors import to_hex

from m1pipe.plots import style
from m1pipe.plots.architecture import PARTS, Shape, n_columns, plot_architecture


def drawn(shape):
    ax = plot_architecture(style.panels()[1][0, 0], shape)
    texts = [text.get_text() for text in ax.texts]
    boxes = [to_hex(p.get_facecolor()) for p in ax.patches if hasattr(p, "get_boxstyle")]
    parts = {colour.lower(): part for part, colour in PARTS.items()}
    return ax, texts, [parts[colour] for colour in boxes]


def test_every_layer_is_there_with_its_width_and_part():
    shape = Shape(n_genes=1287, encoder=(512, 64), decoder=(128,), n_latent=16, n_outputs=2)
    ax, texts, parts = drawn(shape)
    assert [t for t in texts if t[0].isdigit()] == [
        "1,287", "512", "64", "16", "16", "16", "128", "1,287 x 2",
    ]  # fmt: skip
    middle = ["mean", "log-variance", "latent"]
    assert parts == ["encoder"] * 3 + middle + ["decoder"] * 2
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        part for part in PARTS if part != "condition"
    ]
    assert n_columns(shape) == 7
    assert "linear" not in texts


def test_classes_stand_beside_genes_and_latents():
    ax, texts, parts = drawn(Shape(n_genes=50, encoder=(), decoder=(8,), n_latent=4, n_classes=3))
    assert texts.count("+ 3") == parts.count("condition") == 2
    assert "condition" in [t.get_text() for t in ax.get_legend().get_texts()]


def test_an_autoencoder_has_one_code_and_a_skip_its_paths():
    shape = Shape(
        n_genes=50, encoder=(9,), decoder=(9,), n_latent=4, is_variational=False, has_skip=True
    )
    _, texts, parts = drawn(shape)
    assert "log-variance" not in parts and "code" in texts
    assert texts.count("linear") == 2


def test_wider_layers_are_higher():
    ax, _, _ = drawn(Shape(n_genes=4000, encoder=(300,), decoder=(300,), n_latent=8))
    heights = [p.get_height() for p in ax.patches if hasattr(p, "get_boxstyle")]
    assert heights[0] > heights[1] > heights[4]
    assert heights[0] == heights[-1]
