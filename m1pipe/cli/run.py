"""`m1pipe run`: all stages of a study."""

import click

from m1pipe.cli.options import OneOf, option, say
from m1pipe.console import leads
from m1pipe.workflow.tasks import STAGES


@click.command()
@click.argument("study", type=click.Path())
@option(
    "--stage",
    "stages",
    multiple=True,
    type=OneOf(STAGES),
    help="Only this stage; may be given again. gather: the report of crossval's folds.",
)
@option(
    "--task",
    type=click.IntRange(min=1),
    help="Only task K of the one --stage, from 1, in the order of --dry-run.",
    metavar="K",
)
@option("--dry-run", is_flag=True, help="Say what is done, out of date and to do, and stop.")
@option("--force", is_flag=True, help="Redo finished results that are out of date.")
def run(study: str, stages: tuple[str, ...], task: int | None, dry_run: bool, force: bool) -> None:
    """Do what is not done of the study that the TOML file STUDY describes.

    Data are converted, encoders trained, compared, and the report is written into the study's
    folder of results. What is finished with the same settings and input files is skipped: run
    the same command again to resume after an interruption.

    m1pipe run study.toml
    m1pipe run study.toml --stage train --task 2
    """
    from m1pipe.workflow.pipeline import choose_tasks, plan_lines, run_study
    from m1pipe.workflow.resources import check_resources
    from m1pipe.workflow.study import read_study

    described = read_study(study)
    check_resources(described)
    tasks = choose_tasks(described, stages, element=task)
    if dry_run:
        say("\n".join(plan_lines(described, tasks)))
        return
    from m1pipe.training.device import tune_allocator  # with torch

    tune_allocator()
    tell = say if leads() else str
    run_study(described, tasks, force=force, tell=tell)
