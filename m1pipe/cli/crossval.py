"""`m1pipe crossval`: compare encoders with their rivals by cross-validation."""

from typing import Any, get_args

import click

from m1pipe.cli.options import ALIASES, WIDTHS, is_own_gene
from m1pipe.config import CrossvalConfig, HeadConfig, Recipe, Sampler
from m1pipe.console import log
from m1pipe.errors import InputError
from m1pipe.settings import build, read_config_file

NAMED = ("x", "y", "multilabel", "label", "targets", "aliases")


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A comma-separated list of names."""
    if value is None:
        return None
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Numbers of training rows, separated by commas."""
    if value is None:
        return None
    try:
        return tuple(sorted(int(size) for size in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected sizes such as 20,50,100; found {value!r}") from None


@click.command()
@click.option("--x", metavar="FILE", help="Genes of the labelled samples.")
@click.option("--y", metavar="FILE", help="Levels to predict, paired with X by sample id.")
@click.option("--label", metavar="COL", help="Column of X's obs to predict.")
@click.option(
    "--multilabel",
    metavar="FILE|obsm:KEY",
    help="Zeros and ones to predict, paired as --y; or an array of X's obsm.",
)
@click.option("--targets", callback=_names, metavar="A,B", show_default="all", help="Columns of Y.")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=RUN[,RUN2...]",
    help="Frozen encoders, one a seed; or NAME=fold:CONFIG, trained inside each training fold by a "
    "file of settings, a run's, a preset or `default`. May be given again.",
)
@click.option(
    "--models", callback=_names, metavar="LIST", show_default="all", help="The other rows to run."
)
@click.option(
    "--stratify", metavar="COL", show_default="a class label", help="Folds hold it in proportion."
)
@click.option(
    "--group",
    metavar="COL|REGEX",
    show_default="donor, patient, ..., if there",
    help="Groups that stay in one fold; none for none.",
)
@click.option("--folds", type=int, show_default=str(CrossvalConfig.folds), help="Number of folds.")
@click.option(
    "--repeats", type=int, show_default=str(CrossvalConfig.repeats), help="Repeats of the folds."
)
@click.option(
    "--leave-out-strata",
    "leave_out",
    metavar="COL",
    help="Leave out each value of this column in turn, in place of folds.",
)
@click.option(
    "--train-sizes",
    callback=_sizes,
    metavar="20,50,100",
    help="Run every fold with so many of its training rows as well: a label-efficiency curve.",
)
@click.option(
    "--draws",
    type=int,
    show_default=str(CrossvalConfig.draws),
    help="How often each of these is drawn.",
)
@click.option("--fold", type=int, metavar="K", help="Only this fold (from 0): an array's task.")
@click.option("--repeat", type=int, metavar="R", help="Only this repeat (from 0), with --fold.")
@click.option(
    "--recipe",
    type=click.Choice(get_args(Recipe)),
    show_default=CrossvalConfig.recipe,
    help="Heads: the best known, or as published.",
)
@click.option(
    "--head-hidden",
    "hidden",
    type=WIDTHS,
    show_default=",".join(map(str, HeadConfig.hidden)),
    help="Widths of the heads' hidden layers.",
)
@click.option(
    "--head-epochs",
    "epochs",
    type=int,
    show_default=str(HeadConfig.epochs),
    help="Most epochs of a head.",
)
@click.option(
    "--head-lr", "lr", type=float, show_default=str(HeadConfig.lr), help="Their learning rate."
)
@click.option(
    "--tune/--no-tune",
    default=None,
    help="Choose settings of heads and in-fold encoders within each training fold (nested).",
)
@click.option(
    "--head",
    "own_gene",
    type=click.Choice(["plain", "own_gene"]),
    callback=is_own_gene,
    show_default="plain",
    help="Heads alone, or with a multiple of each isoform's own gene beside them.",
)
@click.option(
    "--augment",
    metavar="balance|RATIO",
    help="Networks also with synthetic samples of each training fold, beside class weights and "
    "bootstrap: classes filled up to the largest, or to RATIO times their size.",
)
@click.option(
    "--augment-sampler",
    type=click.Choice(get_args(Sampler)),
    show_default=CrossvalConfig.augment_sampler,
    help="Where their latents come from, as of generate.",
)
@click.option(
    "--class-weight", type=click.Choice(["balanced"]), help="Weight classes alike in the heads."
)
@click.option(
    "--linear-rival",
    metavar="ROW",
    show_default="ridge, or logistic for classes",
    help="Linear row of the declared comparisons.",
)
@click.option(
    "--min-coverage",
    type=float,
    show_default=str(CrossvalConfig.min_coverage),
    help="Share of an encoder's genes that X must have.",
)
@ALIASES
@click.option(
    "--memory",
    metavar="SIZE",
    show_default=CrossvalConfig.memory,
    help="As many folds are fitted together as it holds.",
)
@click.option("--device", show_default=HeadConfig.device, help="Of the heads.")
@click.option("--seed", type=int, show_default=str(CrossvalConfig.seed), help="Of folds and heads.")
@click.option("--out", required=True, metavar="CV", help="Folder of the result.")
@click.option("--config", "file", metavar="FILE", help="JSON or TOML; CV/config.json repeats.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, and stop.")
@click.option("--force", is_flag=True, help="Overwrite a result.")
def crossval(
    out: str,
    encoders: tuple[str, ...],
    fold: int | None,
    repeat: int | None,
    *,
    file: str | None,
    dry_run: bool,
    force: bool,
    **typed: Any,
) -> None:
    """Compare encoders with the genes, their mean, PCA and linear models on the same folds.

    The same command goes on where a killed one was, fold by fold.

    \b
    m1pipe crossval --x x.h5ad --y y.h5ad --encoder vae=runs/vae1,runs/vae2 --out runs/cv
    m1pipe crossval --x x.h5ad --label status --encoder vae=fold:default --out runs/cv
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.evaluation.cost import cost_text
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.crossval_run import run_crossval, summary_line

    if repeat is not None and fold is None:
        raise click.UsageError("--repeat names one repeat of one fold: give --fold as well")
    stored = read_config_file(file) if file else {}
    run = _named_inputs(stored, encoders, {name: typed.pop(name) for name in NAMED})
    config = build(CrossvalConfig, stored.pop("crossval", {}), stored, typed, where="crossval")
    if dry_run:
        click.echo(cost_text(run.problem(config)))
        return
    tune_allocator()
    only = None if fold is None else (repeat or 0, fold)
    result = run_crossval(run, config, out, only=only, force=force)
    for alarm in result.alarms if result else ():
        log.warning("%s", alarm)
    click.echo(f"{out}: fold {fold} done" if result is None else summary_line(out, result))


def _named_inputs(stored: dict[str, Any], encoders: tuple[str, ...], typed: dict[str, Any]) -> Any:
    """What is compared: the file's entries, which are taken out of it, below those typed."""
    from m1pipe.evaluation.encoders import parse_encoder
    from m1pipe.workflow.crossval_run import CrossvalRun

    named = {name: stored.pop(name, None) for name in NAMED}
    named |= {name: value for name, value in typed.items() if value is not None}
    rows = stored.pop("encoders", None) or {}
    if encoders:
        rows = {}
        for name, items in map(parse_encoder, encoders):
            if name in rows:
                raise InputError(f"encoder: {name} is named twice: give its runs after one NAME=")
            rows[name] = items
    if named["x"] is None:
        raise click.UsageError("Missing option '--x'.")
    named["targets"] = None if named["targets"] is None else tuple(named["targets"])
    return CrossvalRun(**named, encoders={name: tuple(items) for name, items in rows.items()})
