"""`m1pipe plot`: figures of runs and of synthetic samples."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from m1pipe.cli.options import ALIASES, Commands, OneOf, option, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As in m1pipe.plots.embedding, which is not loaded for the options alone.
METHODS = ("pca", "mds", "tsne", "umap", "nmf", "diffusion")

OUT = option(
    "--out", required=True, type=click.Path(), help="The .svg, .png or .pdf file to write."
)
FORCE = option("--force", is_flag=True, help="Overwrite the file.")
SEED = option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything drawn."
)
LABEL = option("--label", metavar="COL", help="Column of obs that colours the samples.")
GENES = option("--genes", metavar="A,B,...", help="Which, by name.")
MOST_LATENTS, MOST_SAMPLES = 2000, 1000


def method_option(default: str = "pca") -> Callable[[Any], Any]:
    """Way from many dimensions to two."""
    kinds = OneOf(METHODS)
    text = "Way to two dimensions; umap needs m1pipe[umap]."
    return option("--method", type=kinds, default=default, show_default=True, help=text)


def most(n: int) -> Callable[[Any], Any]:
    """Number of samples from which on some are drawn."""
    text = "Most samples a side; of more, so many are drawn."
    kind = click.IntRange(5)
    return option("--max-samples", type=kind, default=n, show_default=True, help=text)


def pair_options(command: Any) -> Any:
    """Files and options of a figure of synthetic samples beside real ones."""
    for part in (
        FORCE,
        OUT,
        SEED,
        ALIASES,
        most(MOST_SAMPLES),
        option("--synthetic", required=True, type=click.Path(), help="Those that were made."),
        option("--real", required=True, type=click.Path(), help="Real samples."),
    ):
        command = part(command)
    return command


def named(genes: str | None) -> list[str] | None:
    """Gene names of one option."""
    return None if genes is None else [name.strip() for name in genes.split(",") if name.strip()]


def _write(draw: Callable[[], "Figure"], out: str, *, force: bool) -> None:
    """Draw a figure into a file whose name says its format, and say what it shows."""
    from m1pipe.atomic import refuse_existing
    from m1pipe.plots import style

    style.format_of(Path(out))
    refuse_existing(out, force=force)
    figure = draw()
    style.save(figure, Path(out))
    heading = figure.get_suptitle() or figure.axes[0].get_title(loc="left")
    say(f"{out}: {'; '.join(heading.splitlines())}")


@click.group(cls=Commands)
def plot() -> None:
    """Draw a figure as SVG, PNG or PDF, by the ending of the name.

    Example:
      m1pipe plot history runs/vae1 --out curves.svg
      m1pipe plot augmentation --real x.h5ad --synthetic s.h5ad --out aug.png
    """


@plot.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@OUT
@FORCE
def history(runs: tuple[str, ...], out: str, force: bool) -> None:
    """Training curves of RUNS, also of those that are not finished, or of the trials of a sweep.

    m1pipe plot history runs/vae1 runs/vae2 --out curves.svg
    m1pipe plot history sweep --out trials.svg
    """
    from m1pipe.figures import model

    _write(lambda: model.history(runs), out, force=force)


@plot.command()
@click.argument("run", type=click.Path())
@OUT
@FORCE
def architecture(run: str, out: str, force: bool) -> None:
    """Layers of the model in RUN with their widths, coloured by part.

    m1pipe plot architecture runs/vae1 --out layers.svg
    """
    from m1pipe.encoder import load_encoder
    from m1pipe.figures import model

    _write(lambda: model.architecture(load_encoder(run)), out, force=force)


@plot.command()
@click.argument("data", type=click.Path())
@option("--run", type=click.Path(), help="Encode DATA with this run; else it holds latents.")
@LABEL
@option(
    "--terms",
    type=click.Path(),
    help="Zeros and ones, as m1pipe enrich writes them: --label is then one of its columns.",
)
@method_option("tsne")
@most(MOST_LATENTS)
@SEED
@OUT
@FORCE
def latent(
    data: str,
    *,
    run: str | None,
    label: str | None,
    terms: str | None,
    method: str,
    max_samples: int,
    seed: int,
    out: str,
    force: bool,
) -> None:
    """Samples of DATA in latent space, coloured by class with centroids, or by a number.

    m1pipe plot latent z.h5ad --label tissue --out latent.png
    m1pipe plot latent x.h5ad --run runs/vae1 --label age --method umap --out latent.png
    m1pipe plot latent lfc.h5ad --run runs/ae --terms go.h5ad --label TERM --method pca --out t.png
    """
    from m1pipe.encoder import load_encoder
    from m1pipe.figures import model

    if terms is not None and label is None:
        raise click.UsageError("--terms needs --label, the name of one of its columns.")

    def draw() -> Any:
        encoder = None if run is None else load_encoder(run)
        return model.latent(
            data,
            encoder,
            label=label,
            terms=terms,
            method=method,
            max_samples=max_samples,
            seed=seed,
        )

    _write(draw, out, force=force)


@plot.command("map")
@click.argument("data", type=click.Path())
@option("--onto", metavar="OLD.h5ad", type=click.Path(), help="Old samples, under them.")
@LABEL
@option("--key", help="Which array of obsm, where there are several.")
@OUT
@FORCE
def map_(
    data: str, *, onto: str | None, label: str | None, key: str | None, out: str, force: bool
) -> None:
    """Samples of DATA on the map that it holds, as m1pipe map writes it.

    m1pipe plot map atlas.h5ad --label tissue --out atlas.png
    m1pipe plot map placed.h5ad --onto atlas.h5ad --label tissue --out placed.png
    """
    from m1pipe.figures import model

    _write(lambda: model.on_map(data, onto, label=label, key=key), out, force=force)


@plot.command()
@click.argument("way", type=click.Path())
@GENES
@option("--n-genes", type=click.IntRange(1), default=40, show_default=True)
@OUT
@FORCE
def interpolation(way: str, genes: str | None, n_genes: int, out: str, force: bool) -> None:
    """Heat map of genes along WAY, a file that m1pipe interpolate wrote.

    Shown are the genes that change most, or those of --genes.

    m1pipe interpolate runs/vae1 x.h5ad --from tissue=Liver --to tissue=Lung --out way.h5ad
    m1pipe plot interpolation way.h5ad --out way.svg
    """
    from m1pipe.figures import model

    _write(lambda: model.interpolation(way, named(genes), n_genes=n_genes), out, force=force)


@plot.command()
@pair_options
@LABEL
@method_option()
def augmentation(
    *, real: str, synthetic: str, method: str, seed: int, out: str, force: bool, **options: Any
) -> None:
    r"""Real and synthetic samples in two dimensions; with --label a panel each.

    Fitted to the real samples where the method can place others (pca, nmf, umap, diffusion), else
    to both together (mds, tsne); the title says which.

    m1pipe plot augmentation --real x.h5ad --synthetic s.h5ad --method umap --label tissue \
        --out aug.png
    """
    from m1pipe.figures import synthetic as figures
    from m1pipe.figures.samples import load_pair

    def draw() -> Any:
        pair = load_pair(real, synthetic, seed=seed, **options)
        return figures.augmentation(pair, method, seed=seed)

    _write(draw, out, force=force)


@plot.command()
@pair_options
@GENES
def genes(
    *, real: str, synthetic: str, genes: str | None, out: str, force: bool, **options: Any
) -> None:
    """Distributions of genes in real and synthetic samples.

    Without --genes nine, from the best to the worst Kolmogorov-Smirnov statistic.

    m1pipe plot genes --real x.h5ad --synthetic s.h5ad --genes TP53,MYC --out genes.svg
    """
    from m1pipe.figures import synthetic as figures
    from m1pipe.figures.samples import load_pair

    def draw() -> Any:
        return figures.gene_distributions(load_pair(real, synthetic, **options), named(genes))

    _write(draw, out, force=force)


@plot.command()
@pair_options
@GENES
@option("--max-genes", type=click.IntRange(2), default=100, show_default=True)
def correlation(
    *,
    real: str,
    synthetic: str,
    genes: str | None,
    max_genes: int,
    out: str,
    force: bool,
    **options: Any,
) -> None:
    """Correlations of genes: real, synthetic, difference, clustered on the real ones.

    Shown are the genes that vary most, or those of --genes.

    m1pipe plot correlation --real x.h5ad --synthetic s.h5ad --out correlation.png
    """
    from m1pipe.figures import synthetic as figures
    from m1pipe.figures.samples import load_pair

    def draw() -> Any:
        pair = load_pair(real, synthetic, **options)
        return figures.correlations(pair, named(genes), max_genes=max_genes)

    _write(draw, out, force=force)


@plot.command("mean-variance")
@pair_options
def mean_variance(*, real: str, synthetic: str, out: str, force: bool, **options: Any) -> None:
    """Variance of every gene by its mean, real and synthetic, and their ratio.

    m1pipe plot mean-variance --real x.h5ad --synthetic s.h5ad --out mv.png
    """
    from m1pipe.figures import synthetic as figures
    from m1pipe.figures.samples import load_pair

    def draw() -> Any:
        return figures.mean_variance(load_pair(real, synthetic, **options))

    _write(draw, out, force=force)
