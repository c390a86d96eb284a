"""`m1pipe jobs`: scripts for Slurm and LSF."""

import click

from m1pipe.cli.options import OneOf, option
from m1pipe.workflow.resources import JOB_STAGES, SYSTEMS, System


@click.command()
@click.argument("system", type=OneOf(SYSTEMS))
@click.argument("stage", type=OneOf((*JOB_STAGES, "pipeline")))
@option(
    "--study", "file", required=True, type=click.Path(), help="The study's TOML file, with [jobs]."
)
@option("--submit", is_flag=True, help="Hand the job over to the queue, and say its number.")
def jobs(system: System, stage: str, file: str, submit: bool) -> None:
    """Print the job script of a stage of a study, or submit it.

    Resources, queue and environment are those of the study's [jobs] table. `pipeline` is all
    stages, each waiting for those that it needs. Scripts are submitted from the study's folder,
    with the data in their places.

    m1pipe jobs slurm pipeline --study study.toml > study.sh
    m1pipe jobs lsf crossval --study study.toml --submit
    """
    from m1pipe.workflow.jobs import job_script
    from m1pipe.workflow.jobs import submit as hand_over
    from m1pipe.workflow.study import read_study

    study = read_study(file, files=submit)
    if not submit:
        click.echo(job_script(study, system, stage), nl=False)
        return
    for name, number in hand_over(study, system, stage):
        click.echo(f"{name}: job {number}")
