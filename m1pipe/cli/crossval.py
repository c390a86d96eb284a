"""`m1pipe crossval`: compare encoders with their rivals by cross-validation."""

from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import (
    ALIASES,
    NAMES,
    OneOf,
    Sections,
    from_config,
    is_own_gene,
    name_sources,
    option,
    say,
    usage_checked,
)
from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.console import log
from m1pipe.errors import SettingError
from m1pipe.settings import read_config_file

NAMED = (
    *("x", "y", "multilabel", "label", "targets", "aliases"),
    *("source", "source_label", "source_study"),
)


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Numbers of training rows, separated by commas."""
    if value is None:
        return None
    try:
        return tuple(sorted(int(size) for size in value.split(",")))
    except ValueError:
        raise click.BadParameter(f"expected sizes such as 20,50,100; found {value!r}") from None


@click.command(cls=Sections)
@option("--x", metavar="FILE", help="Genes of the labelled samples.", section="What")
@option(
    "--y", metavar="FILE", help="Levels to predict, paired with X by sample id.", section="What"
)
@option("--label", metavar="COL", help="Column of X's obs to predict.", section="What")
@option(
    "--multilabel",
    metavar="FILE|obsm:KEY",
    help="Zeros and ones to predict, paired as --y; or an array of X's obsm.",
    section="What",
)
@option("--targets", type=NAMES, metavar="A,B", shown="all", help="Columns of Y.", section="What")
@option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=RUN[,RUN2...]",
    help="Frozen encoders, one a seed; or NAME=fold:CONFIG, trained inside each training fold by a "
    "file of settings, a run's, a preset or `default`. May be given again.",
    section="Models",
)
@name_sources
@from_config(CrossvalConfig, "models folds repeats group stratify")
@option(
    "--train-sizes",
    callback=_sizes,
    metavar="20,50,100",
    help="Run every fold with so many of its training samples as well: a label-efficiency curve.",
    section="Folds",
)
@from_config(CrossvalConfig, "recipe tune class_weight")
@option(
    "--declare",
    metavar="PLAN",
    help="Write what will be compared, and what would be a win, into this TOML file, and stop.",
    section="Plan",
)
@option(
    "--plan",
    metavar="PLAN",
    help="Run a declared plan; the report names what is typed otherwise.",
    section="Plan",
)
@option(
    "--win",
    multiple=True,
    metavar="MODEL:RIVALS",
    help="What --declare counts as a win, such as vae:ridge,raw. May be given again.",
    shown="a model that wins against all its rivals",
    section="Plan",
)
@from_config(CrossvalConfig, "rope")
@option("--out", metavar="CV", help="Folder of the result.", section="Output")
@option(
    "--config",
    "file",
    metavar="FILE",
    help="JSON or TOML; CV/config.json repeats.",
    section="Output",
)
@option("--dry-run", is_flag=True, help="Say what it would take, and stop.", section="Output")
@option("--force", is_flag=True, help="Overwrite a result.", section="Output")
@from_config(CrossvalConfig, "seed leave_out draws")
@option("--fold", type=int, metavar="K", help="Only this fold (from 0): an array's task.")
@option("--repeat", type=int, metavar="R", help="Only this repeat (from 0), with --fold.")
@from_config(CrossvalConfig, "hidden epochs lr")
@option(
    "--head",
    "own_gene",
    type=OneOf(["plain", "own_gene"]),
    callback=is_own_gene,
    shown="plain",
    help="Heads alone, or with a multiple of each isoform's own gene beside them.",
)
@from_config(CrossvalConfig, "augment augment_sampler linear_rival loss min_coverage")
@ALIASES
@from_config(CrossvalConfig, "memory")
@option("--device", shown=HeadConfig.device, help="Of the heads.")
def crossval(
    out: str | None,
    encoders: tuple[str, ...],
    fold: int | None,
    repeat: int | None,
    *,
    declare: str | None,
    plan: str | None,
    win: tuple[str, ...],
    file: str | None,
    dry_run: bool,
    force: bool,
    **typed: Any,
) -> None:
    """Compare encoders with the genes, their mean, PCA and linear models on the same folds.

    Run the same command again to resume after an interruption, fold by fold. The report is written
    at the end; m1pipe report is for folds that ran as a job array.

    mean, prior        constants: the training mean, or class frequencies
    ridge, logistic    linear models on the genes
    raw                a network on the genes
    pca                a network on PCA of the encoder's training data
    pca_fold           a network on PCA of the training fold alone
    NAME               a network on the latents of the encoder NAME
    NAME_linear        a linear model on them; pca_linear alike
    NAME_ridge         a linear model on the genes and them
    NAME_gene          NAME and a multiple of each isoform's own gene

    m1pipe crossval --x x.h5ad --y y.h5ad --encoder vae=runs/vae1,runs/vae2 --out runs/cv
    m1pipe crossval --x x.h5ad --label status --encoder vae=fold:default --out runs/cv
    m1pipe crossval --x x.h5ad --label status --encoder vae=runs/vae1 --source studies.h5ad --out cv
    m1pipe crossval --x x.h5ad --y y.h5ad --encoder vae=runs/vae1 --declare plan.toml --out runs/cv2
    m1pipe crossval --plan plan.toml
    """
    from m1pipe.evaluation.cost import cost_text
    from m1pipe.reports.verdicts import summary
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow import declared_plan
    from m1pipe.workflow.crossval_run import run_crossval

    if repeat is not None and fold is None:
        raise click.UsageError("--repeat names one repeat of one fold: give --fold as well")
    if (declare and plan) or (win and not declare) or (plan and file):
        raise click.UsageError(
            "--declare writes a plan, to which --win belongs; --plan runs one, in the place of "
            "--config: give one of them"
        )
    declared = declared_plan.read_declaration(plan) if plan else None
    stored = read_config_file(file) if file else declared_plan.settings_of(declared or {})
    out = out or (declared["declared"]["out"] if declared else None)
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    run = _named_inputs(stored, encoders, {name: typed.pop(name) for name in NAMED})
    config = usage_checked(
        CrossvalConfig, stored.pop("crossval", {}), stored, typed, where="crossval"
    )
    if declare:
        made = declared_plan.declare(run, config, out, declare, win=win, force=force)
        click.echo(declared_plan.declared_line(declare, made))
        return
    if dry_run:
        say(cost_text(run.problem(config)))
        return
    tune_allocator()
    only = None if fold is None else (repeat or 0, fold)
    result = run_crossval(run, config, out, only=only, force=force, declared=declared)
    for alarm in result.alarms if result else ():
        log.warning("%s", alarm)
    page = Path(out) / "report.html"
    say(f"{out}: fold {fold} done" if result is None else summary(result, page))


def _named_inputs(stored: dict[str, Any], encoders: tuple[str, ...], typed: dict[str, Any]) -> Any:
    """What is compared: the file's entries, which are taken out of it, below those typed."""
    from m1pipe.evaluation.encoders import parse_encoder
    from m1pipe.workflow.crossval_inputs import CrossvalRun

    named = {name: stored.pop(name, None) for name in NAMED}
    named |= {name: value for name, value in typed.items() if value not in (None, ())}
    rows = stored.pop("encoders", None) or {}
    if encoders:
        rows = {}
        for name, items in map(parse_encoder, encoders):
            if name in rows:
                raise SettingError(f"encoder: {name} is named twice: give its runs after one NAME=")
            rows[name] = items
    if named["x"] is None:
        raise click.UsageError("Missing option '--x'.")
    return CrossvalRun.read({**named, "source": named["source"] or (), "encoders": rows})
