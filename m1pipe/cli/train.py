"""`m1pipe train`: train an encoder in a run folder."""

from pathlib import Path
from typing import Any, get_args

import click

from m1pipe import config, settings
from m1pipe.cli.options import ALIASES, WIDTHS
from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig, presets
from m1pipe.console import leads
from m1pipe.errors import InputError


def _default(value: object) -> str | bool:
    """Text of a default; the value lives in the configuration class."""
    return False if value is None else str(value)


@click.command()
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder of the run.")
@click.option("--rows", help="COLUMN~REGEX, or a condition on obs, that chooses the rows.")
@click.option("--preset", type=click.Choice(list(presets.PRESETS)), help="A published set-up.")
@click.option("--config", "file", type=click.Path(), help="JSON or TOML; RUN/config.json repeats.")
@click.option(
    "--beta",
    type=float,
    show_default=_default(ModelConfig.beta),
    help="Weight of the KL divergence; 0 is the plain autoencoder.",
)
@click.option(
    "--latent",
    "n_latent",
    type=int,
    show_default=_default(ModelConfig.n_latent),
    help="Number of latent units.",
)
@click.option(
    "--hidden",
    type=WIDTHS,
    show_default="none below 1,000 rows, else 512",
    help='Widths of the encoder\'s hidden layers, such as "512,256", or none.',
)
@click.option(
    "--decoder-hidden",
    type=WIDTHS,
    show_default="the encoder's, reversed; without --hidden 512, or 128 below 500 rows",
    help="Widths of the decoder's hidden layers.",
)
@click.option(
    "--likelihood",
    type=click.Choice(get_args(config.Likelihood)),
    show_default=_default(ModelConfig.likelihood),
    help="Law of a gene's level.",
)
@click.option(
    "--transform",
    type=click.Choice(get_args(config.Transform)),
    show_default=_default(ModelConfig.transform),
    help="Scaling of each gene.",
)
@click.option(
    "--min-variance",
    type=float,
    help="Leave out genes that vary no more over the training rows, before --transform.",
)
@click.option(
    "--latent-scale",
    type=click.Choice(get_args(config.LatentScale)),
    show_default=_default(ModelConfig.latent_scale),
    help="Latents times the length of their loadings on the genes, or as the network has them.",
)
@click.option(
    "--condition",
    metavar="COL",
    help="Column of obs whose class the network is told, one-hot.",
)
@click.option(
    "--epochs",
    type=int,
    show_default="about 2,000 steps, 20 to 100 epochs",
    help="Most passes over the rows.",
)
@click.option(
    "--batch-size", type=int, show_default=_default(TrainingConfig.batch_size), help="Rows a step."
)
@click.option(
    "--lr", type=float, show_default=_default(TrainingConfig.lr), help="Learning rate at the start."
)
@click.option(
    "--memory",
    show_default=_default(TrainingConfig.memory),
    help="What the data may take; a larger file is streamed.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(config.Precision)),
    show_default=_default(TrainingConfig.precision),
    help="Of matrix products.",
)
@click.option(
    "--device", show_default=_default(TrainingConfig.device), help="auto, cpu, cuda or cuda:N."
)
@click.option(
    "--seed", type=int, show_default=_default(TrainingConfig.seed), help="Of everything drawn."
)
@click.option(
    "--validation",
    metavar="FRACTION|FILE",
    show_default=_default(TrainingConfig.validation),
    help="Share of the rows, or file, that chooses the best epoch.",
)
@click.option(
    "--group",
    metavar="COL|REGEX",
    show_default="donor, patient, ..., if there",
    help="Groups that stay on one side of the validation split; none for none.",
)
@click.option(
    "--drop-samples-of",
    type=click.Path(),
    metavar="FILE",
    help="Leave out samples that are in FILE too, by id or as near-identical rows.",
)
@click.option(
    "--thin-to",
    type=click.Path(),
    metavar="FILE",
    help="Thin DATA's counts to depths of FILE's samples; its units too, where it has some.",
)
@click.option(
    "--normalize",
    type=click.Choice(["total"]),
    help="Scale DATA's counts (after --thin-to) to one total.",
)
@click.option("--target-sum", type=float, show_default="a million", help="Of --normalize.")
@click.option("--log2p1", is_flag=True, default=None, help="log2(1 + x) of what was normalised.")
@ALIASES
@click.option(
    "--micro-batch",
    type=int,
    metavar="N",
    help="Most rows of a batch taken at once; gradients are added up.  [default: all]",
)
@click.option("--log-steps", is_flag=True, help="Keep the losses of every step in steps.csv.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@click.option("--force", is_flag=True, help="Overwrite a run.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, and stop.")
def train(
    *,
    data: str,
    out: str,
    file: str | None,
    preset: str | None,
    validation: str | None,
    log_steps: bool,
    resume: bool,
    force: bool,
    dry_run: bool,
    **typed: Any,
) -> None:
    """Train an encoder on DATA: a VAE, or an autoencoder at --beta 0.

    Every setting has a place in --config; a typed option outweighs the file, the file a preset.

    \b
    m1pipe train u.h5ad --out runs/vae1 --latent 32 --seed 1
    m1pipe train u.h5ad --out runs/ae --beta 0 --rows 'tissue != "Liver"'
    m1pipe train u.h5ad --out runs/cvae --condition cell_type
    m1pipe train u.h5ad --out runs/again --config runs/vae1/config.json
    m1pipe train u_counts.h5ad --out runs/vae2 --thin-to x.h5ad
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.io.reader import open_matrix
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow import training_run as runs
    from m1pipe.workflow.run_folder import RunFolder

    if resume and force:
        raise click.UsageError("--resume goes on with a run, --force overwrites it: give one")
    chosen = settings.build(
        EncoderConfig,
        (RunFolder(out).read_config() if resume else None) or {},
        presets.preset_options(preset) if preset else {},
        settings.read_config_file(file) if file else {},
        {**typed, **_validation(validation)},
        where="train",
    )
    if dry_run:
        with open_matrix(data) as matrix:
            click.echo(runs.dry_run_text(runs.make_plan(matrix, chosen)))
        return
    tune_allocator()
    encoder = runs.run_training(data, out, chosen, force=force, resume=resume, log_steps=log_steps)
    if leads():
        click.echo(runs.summary_line(out, encoder))


def _validation(value: str | None) -> dict[str, Any]:
    """The setting meant by a share of the rows, or by a file."""
    if value is None:
        return {}
    try:
        return {"validation": float(value)}
    except ValueError:
        if not Path(value).exists():
            raise InputError(
                f"validation: expected a share of the rows, such as 0.1, or a file; found {value!r}"
            ) from None
        return {"validation_file": value}
