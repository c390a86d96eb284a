"""`m1pipe status`: where every run stands."""

from pathlib import Path

import click

from m1pipe.cli.options import say


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
def status(runs: tuple[Path, ...]) -> None:
    """Say what is queued, running, done, failed and why, in folders of results.

    The files that runs keep up to date are read; then squeue and bjobs are asked where there are
    any, for what waits or was lost.

    m1pipe status runs
    """
    from m1pipe.workflow.status import ask_queue, run_lines, status_text

    queue = ask_queue()
    say(status_text([line for folder in runs for line in run_lines(folder, queue)]))
