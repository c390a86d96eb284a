"""`m1pipe train`: train an encoder in a run folder."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import ALIASES, OneOf, Sections, from_config, option, say, usage_checked
from m1pipe.config import EncoderConfig, TrainingConfig, presets
from m1pipe.console import leads
from m1pipe.errors import SettingError
from m1pipe.settings import read_config_file


@click.command(cls=Sections)
@click.argument("data", type=click.Path(), nargs=-1, required=True)
@from_config(EncoderConfig, "rows")
@option(
    "--validation",
    metavar="FRACTION|FILE",
    help="Share of the samples, or file, that chooses the best epoch.",
    shown=str(TrainingConfig.validation),
    section="Samples",
)
@from_config(
    EncoderConfig,
    "group drop_samples_of n_latent beta hidden likelihood transform condition batch center_within "
    "epochs batch_size lr seed device",
)
@option("--out", required=True, type=click.Path(), help="Folder of the run.", section="Output")
@option(
    "--preset",
    type=OneOf(list(presets.PRESETS)),
    help="A published set-up.",
    section="Output",
)
@option(
    "--config",
    "file",
    type=click.Path(),
    help="JSON or TOML; RUN/config.json repeats.",
    section="Output",
)
@option("--dry-run", is_flag=True, help="Say what it would take, and stop.", section="Output")
@option("--force", is_flag=True, help="Overwrite a run.", section="Output")
@from_config(
    EncoderConfig,
    "decoder_hidden min_variance latent_scale thin_to normalize target_sum log2p1",
)
@ALIASES
@from_config(EncoderConfig, "memory precision micro_batch")
@option("--log-steps", is_flag=True, help="Keep the losses of every step in steps.csv.")
@option(
    "--log-to",
    type=OneOf(["tensorboard", "mlflow"]),
    help="Tell it of the losses of every epoch (the extra of its name).",
)
@option("--resume", is_flag=True, help="Take options that are not given from the run in --out.")
def train(
    *,
    data: tuple[str, ...],
    out: str,
    file: str | None,
    preset: str | None,
    validation: str | None,
    log_steps: bool,
    log_to: Any,
    resume: bool,
    force: bool,
    dry_run: bool,
    **typed: Any,
) -> None:
    """Train an encoder on DATA: a VAE, or an autoencoder at --beta 0.

    Every setting has a place in --config; a typed option outweighs the file, the file a preset.
    Run the same command again to resume after an interruption.

    m1pipe train u.h5ad --out runs/vae1 --latent 32 --seed 1
    m1pipe train u.h5ad --out runs/ae --beta 0 --rows 'tissue != "Liver"'
    m1pipe train u.h5ad --out runs/cvae --condition cell_type
    m1pipe train studies.h5ad --out runs/studies --batch study
    m1pipe train u1.h5ad u2.h5ad --out runs/both
    m1pipe train u.h5ad --out runs/again --config runs/vae1/config.json
    m1pipe train u_counts.h5ad --out runs/vae2 --thin-to x.h5ad
    """
    from m1pipe.io.together import open_together
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow import training_run as runs
    from m1pipe.workflow.run_folder import RunFolder

    if resume and force:
        raise click.UsageError("--resume resumes a run, --force overwrites it: give one")
    chosen = usage_checked(
        EncoderConfig,
        (RunFolder(out).read_config() if resume else None) or {},
        presets.preset_options(preset) if preset else {},
        read_config_file(file) if file else {},
        {**typed, **_validation(validation), **_batch(typed.pop("batch"))},
        where="train",
    )
    if dry_run:
        with ExitStack() as opened:
            matrix = open_together(data, opened)
            plan = runs.make_plan(matrix, runs.by_file(chosen, len(data)))
            say(runs.dry_run_text(plan))
        return
    tune_allocator()
    encoder = runs.run_training(data, out, chosen, force=force, log_steps=log_steps, log_to=log_to)
    if leads():
        say(runs.summary_line(out, encoder))


def _batch(columns: tuple[str, ...] | None) -> dict[str, Any]:
    """The setting meant by columns, or by none."""
    return {} if columns is None else {"batch": () if columns == ("none",) else columns}


def _validation(value: str | None) -> dict[str, Any]:
    """The setting meant by a share of the rows, or by a file."""
    if value is None:
        return {}
    try:
        return {"validation": float(value)}
    except ValueError:
        if not Path(value).exists():
            raise SettingError(
                f"validation: expected a share of the rows, such as 0.1, or a file; found {value!r}"
            ) from None
        return {"validation_file": value}
