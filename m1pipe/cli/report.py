"""`m1pipe report`: gather a cross-validation's folds, test, write the report."""

from pathlib import Path

import click

from m1pipe.cli.options import say
from m1pipe.console import log
from m1pipe.errors import InputError
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.reports.crossval_report import write_report
from m1pipe.reports.files import read_result
from m1pipe.reports.verdicts import summary


@click.command()
@click.argument("cv", metavar="CV", type=click.Path(path_type=Path))
def report(cv: Path) -> None:
    """Gather the folds in CV, compare the models, write CV/report.html and its tables.

    The folds may have been run at once or as a job array; all have to be there. What an earlier
    call wrote is written anew, from the same losses.

    After m1pipe crossval ... --out runs/cv:
      m1pipe report runs/cv
    """
    result = _gathered(cv)
    for alarm in result.alarms:
        log.warning("%s", alarm)
    say(summary(result, cv / "report.html"))


def _gathered(cv: Path) -> CrossvalResult:
    """Result of the shares in CV, or, where these were cleared away, of its tables."""
    if not cv.is_dir():
        raise InputError(f"{cv}: expected the folder of a cross-validation; found none")
    if (cv / "shares").is_dir() or not (cv / "summary.json").is_file():
        from m1pipe.workflow.crossval_run import gather  # with torch, which --help does not need

        return gather(cv)
    result = read_result(cv)
    write_report(result, cv)
    return result
