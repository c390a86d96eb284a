"""Options made from the fields of configurations: name, kind, help and default."""

import click
import pytest
from click.testing import CliRunner

from m1pipe.cli.main import COMMANDS, cli
from m1pipe.cli.options import from_config
from m1pipe.config import EncoderConfig, ModelConfig
from m1pipe.settings import build


@click.command()
@from_config(EncoderConfig, "n_latent hidden likelihood log2p1 thin_to")
def made(**typed: object) -> None:
    """Say what was typed."""
    click.echo(repr(typed))


def _typed(*arguments: str) -> str:
    result = CliRunner().invoke(made, arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_what_is_not_typed_is_none_so_that_the_default_stands() -> None:
    names = ("n_latent", "hidden", "likelihood", "log2p1", "thin_to")
    assert _typed() == repr(dict.fromkeys(names))
    assert build(EncoderConfig, dict.fromkeys(names)) == EncoderConfig()


def test_values_have_the_kind_of_their_field() -> None:
    typed = _typed("--latent", "8", "--hidden", "64,32", "--likelihood", "bernoulli", "--log2p1")
    wanted = {"n_latent": 8, "hidden": (64, 32), "likelihood": "bernoulli", "log2p1": True}
    assert typed == repr(wanted | {"thin_to": None})
    assert CliRunner().invoke(made, ["--likelihood", "poisson"]).exit_code == 2


def test_help_says_the_default_that_stands_in_the_field() -> None:
    text = CliRunner().invoke(made, ["--help"]).output
    assert f"[default: {ModelConfig.n_latent}]" in " ".join(text.split())
    assert f"[default: {ModelConfig.likelihood}]" in " ".join(text.split())


@pytest.mark.parametrize("command", list(COMMANDS))
def test_examples_are_shown_line_by_line(command: str) -> None:
    lines = CliRunner().invoke(cli, [command, "--help"]).output.split("Options:")[0].splitlines()
    examples = [line.strip() for line in lines if line.strip().startswith("m1pipe ")]
    assert any(line.startswith(f"m1pipe {command}") for line in examples)
    assert "\b" not in "".join(lines)
