"""The `m1pipe` command: finds the sub-command, and turns failures into exit codes in one place."""

import importlib
import os
import sys
import traceback
import warnings
from contextlib import nullcontext
from typing import Any

import click

from m1pipe import errors
from m1pipe._version import __version__
from m1pipe.cli.options import Commands, keep_examples
from m1pipe.console import log, set_verbosity
from m1pipe.training.signals import stopped_at_once

GROUPS = {
    "Data": {
        "demo": "the whole job on simulated data, in a minute",
        "simulate": "make data with a known truth",
        "convert": "text and other formats to h5ad, streaming",
        "inspect": "what a file holds; overlap with another",
        "split": "a file into training and held-out samples",
        "contrasts": "log fold changes of many studies from raw counts",
        "enrich": "gene sets enriched among log fold changes",
    },
    "Encoder": {
        "train": "train an encoder (VAE, or autoencoder at beta 0)",
        "sweep": "many configurations of an encoder, one table",
        "encode": "latent means of a file's samples",
        "reconstruct": "samples as a model sees them, denoised",
        "impute": "missing levels from the others of a sample",
        "score": "log-likelihood of samples: which are unlike the training data",
        "loadings": "what each latent unit says of the genes",
        "interpolate": "the way between two samples or groups in latent space",
        "cluster": "clusters of samples in latent space, beside labels",
        "map": "samples in two dimensions; new samples on an old map",
        "export": "an encoder as ONNX, for programs without torch",
    },
    "Compare and predict": {
        "crossval": "compare models by cross-validation, with a report",
        "report": "that report from the folds of a job array, or anew",
        "verify": "make a result again from its inputs, and compare",
        "fit": "fit one of these models to all labelled samples",
        "evaluate": "test a fitted model on other labelled samples",
        "predict": "predict targets of new samples",
        "plot": "figures of runs and of synthetic samples",
    },
    "Synthetic samples": {
        "generate": "synthetic samples of a trained model",
        "quality": "are they like held-out real samples: a report",
    },
    "Studies and queues": {
        "run": "all stages of a study, skipping what is up to date",
        "jobs": "scripts for Slurm and LSF from a study; or submit them",
        "status": "what is queued, running, done, failed and why",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}


class LazyGroup(Commands):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `m1pipe.cli.NAME` and return its command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"m1pipe.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        keep_examples(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        width = max(map(len, COMMANDS))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="m1pipe")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Say only warnings.")
def cli(verbose: int, quiet: bool) -> None:
    """Latent features from a big unlabelled expression matrix, put to the test on a small one.

    A first run: m1pipe demo
    """
    set_verbosity(verbose, quiet)
    warnings.showwarning = _warn


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Warnings of ours as one log line each; others named by their class."""
    prefix = "warning" if issubclass(category, errors.M1Warning) else category.__name__
    log.warning("%s: %s", prefix, message)


def hide_failed_closes() -> None:
    """Print no trace of what HDF5 could not write at a close: an exception has told it already."""
    sys.excepthook = _print_uncaught
    sys.unraisablehook = lambda found: _print_uncaught(
        found.exc_type, found.exc_value or found.exc_type(), found.exc_traceback
    )


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if isinstance(error, RuntimeError) and "ref count" in str(error):
        log.debug("%s", error)
    else:
        sys.__excepthook__(kind, error, trace)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    hide_failed_closes()
    os.environ.setdefault("M1PIPE_LOOK_FIRST", "1")
    sys.exit(run(arguments))


@errors.naming_options()
def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        # workers of torchrun are ended by their agent, also from calls that hear no signal
        with stopped_at_once() if "RANK" not in os.environ else nullcontext():
            code = cli.main(args=arguments, prog_name="m1pipe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("m1pipe: interrupted", err=True)
        return errors.EXIT_INTERRUPTED
    except errors.StoppedBySignalError as stopped:
        click.echo(f"m1pipe: {stopped}", err=True)
        return errors.EXIT_RESUMABLE
    except errors.PeerLostError as error:
        click.echo(f"m1pipe: {error}", err=True)
        return errors.EXIT_OURS
    except errors.InputError as error:
        click.echo(f"m1pipe: error: {' '.join(str(error).split())}", err=True)
        usage = isinstance(error, errors.SettingError)
        return errors.EXIT_USAGE if usage else errors.EXIT_INPUT
    except MemoryError as error:
        reason = " ".join(str(error).split()) or "no more memory"
        click.echo(f"m1pipe: error: {reason}: lower --memory, or take a larger machine", err=True)
        return errors.EXIT_INPUT
    except Exception:  # noqa: BLE001 - the one place where a fault of ours becomes an exit code
        traceback.print_exc()
        click.echo("m1pipe: this is a fault of m1pipe itself; please report it", err=True)
        return errors.EXIT_OURS
    return code if isinstance(code, int) else errors.EXIT_DONE


if __name__ == "__main__":
    main()
