import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.config import EncoderConfig
from m1pipe.encoder import train_encoder
from m1pipe.errors import InputError
from m1pipe.figures import model
from m1pipe.settings import build


@pytest.fixture(scope="module")
def trained(expression, tmp_path_factory):
    """Encoders, one conditional, and the folder of the first."""
    options = {"epochs": 3, "n_latent": 3, "hidden": (8,)}
    data = expression(120, 20)
    plain = train_encoder(data, build(EncoderConfig, options))
    told = train_encoder(data, build(EncoderConfig, {**options, "condition": "tissue"}))
    folder = tmp_path_factory.mktemp("model") / "vae"
    plain.save(folder)
    return plain, told, folder


def test_curves_are_those_of_the_history_and_mark_the_best_epoch(trained):
    encoder, _, folder = trained
    figure = model.history([folder])
    table = pd.read_csv(folder / "history.csv")
    drawn = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    assert tuple(table["val_loss"]) in drawn and tuple(table["train_loss"]) in drawn
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "^"]
    assert [mark.get_xdata()[0] for mark in marks] == [encoder.summary["best_epoch"]]
    assert figure.axes[0].get_title(loc="left") == "vae: loss"


def test_curves_of_a_run_that_is_not_finished_have_no_mark(trained, tmp_path):
    (tmp_path / "history.csv").write_bytes((trained[2] / "history.csv").read_bytes())
    figure = model.history([tmp_path, trained[2]])
    assert len(figure.axes) == 6
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "^"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected the folder of m1pipe train"),
        ("", "table of epochs"),
        ("a,b\n1,2\n", "none"),
    ],
)
def test_a_folder_without_curves_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        model.history([tmp_path])


def test_the_shape_is_that_of_the_network(trained):
    plain, told, _ = trained
    shape = model.shape_of(plain)
    assert (shape.n_genes, shape.encoder, shape.decoder, shape.n_latent) == (20, (8,), (8,), 3)
    assert shape.is_variational and shape.has_skip and shape.n_classes == 0
    assert model.shape_of(told).n_classes == 2
    title = model.architecture(told).get_suptitle()
    assert title.startswith("Conditional variational autoencoder\ngaussian likelihood, ")
    assert f"{told.module.n_parameters:,} parameters" in title


def test_latents_are_the_encoders_and_classes_their_colours(trained, expression):
    encoder, new = trained[0], expression(50, 20, seed=2)
    Z = encoder.transform(new)
    figure = model.latent(new, encoder, label="tissue", method="pca")
    centred = Z - Z.mean(axis=0)
    first = np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    liver = (new.obs["tissue"] == "Liver").to_numpy()
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    found = np.abs(drawn[f"Liver ({liver.sum()})"].get_xdata())
    np.testing.assert_allclose(found, first[liver], rtol=1e-3, atol=1e-4)
    assert figure.get_suptitle() == "Latent space by tissue, PCA of 3 latent units"
    shades = model.latent(new, encoder, label="factor").axes[0].collections[0]
    np.testing.assert_allclose(shades.get_array(), new.obs["factor"])
    assert model.latent(new, encoder).axes[0].get_legend() is None


def test_a_term_of_zeros_and_ones_colours_the_samples_it_is_known_of():
    Z = np.arange(12.0).reshape(6, 2)
    names = [f"c{i}" for i in range(6)]
    latents = anndata.AnnData(Z, obs=pd.DataFrame(index=names), uns={"units": "latent"})
    marks = pd.DataFrame({"GO:1": [1.0, 0, 1, 0], "GO:2": 0.5}, index=["c4", "c0", "c1", "new"])
    ax = model.latent(latents, terms=marks, label="GO:1").axes[0]
    drawn = {line.get_label(): sorted(line.get_xdata()) for line in ax.lines}
    assert drawn["yes (2)"] == [2, 8] and drawn["no (1)"] == [0]
    assert drawn["no label (3)"] == [4, 6, 10]
    with pytest.raises(InputError, match="expected a term such as 'GO:1'; found no 'GO:9'"):
        model.latent(latents, terms=marks, label="GO:9")
    with pytest.raises(InputError, match="expected zeros and ones; found others in 'GO:2'"):
        model.latent(latents, terms=marks, label="GO:2")
    with pytest.raises(InputError, match="expected samples such as c0; found x0"):
        model.latent(latents, terms=marks.set_axis([f"x{i}" for i in range(4)]), label="GO:1")


def test_latents_from_a_file_are_taken_as_they_are(trained):
    Z = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    stored = anndata.AnnData(Z, uns={"units": "latent"})
    figure = model.latent(stored, max_samples=30)
    np.testing.assert_array_equal(
        figure.axes[0].lines[0].get_xydata(), Z[model.draw_rows(40, 30, 0)]
    )
    assert figure.get_suptitle() == "Latent space\n30 of 40 samples drawn, seed 0"
    assert model.latent(anndata.AnnData(Z[:, :1], uns={"units": "latent"})).axes
    genes = anndata.AnnData(np.abs(Z), uns={"units": "log2_tpm1"})
    with pytest.raises(InputError, match=r"expected latents.*found log2_tpm1"):
        model.latent(genes)


def test_the_genes_that_change_most_are_sorted_by_their_change():
    share = np.array([1.0, 0.0, 0.5])
    X = np.outer(share, [0.0, 3.0, -2.0, 0.1]).astype(np.float32) + 5
    way = anndata.AnnData(X, uns={"units": "log2_tpm1"})
    way.var_names = ["flat", "up", "down", "little"]
    way.obs["share"] = share
    figure = model.interpolation(way, n_genes=3)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["up", "little", "down"]
    np.testing.assert_allclose(ax.images[0].get_array()[0], [0, 1.5, 3])
    assert ax.get_xlabel() == "share of the way from start to end"
    way.obs["from"], way.obs["to"] = "s1", "s2"
    ax = model.interpolation(way, ["down"]).axes[0]
    assert ax.get_xlabel() == "share of the way from s1 to s2"
    with pytest.raises(
        InputError, match=r'expected what m1pipe interpolate writes.*obs\["share"\]'
    ):
        model.interpolation(anndata.AnnData(X, uns={"units": "log2_tpm1"}))
