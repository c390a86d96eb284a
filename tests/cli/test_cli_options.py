"""Options made from the fields of configurations: name, kind, help and default."""

import re

import click
import pytest
from click.testing import CliRunner

from m1pipe.cli.main import COMMANDS, GROUPS, cli, run
from m1pipe.cli.options import from_config
from m1pipe.config import EncoderConfig, ModelConfig
from m1pipe.errors import InputError
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
    lines = CliRunner().invoke(cli, [command, "--help"]).output.splitlines()
    examples = [line.strip() for line in lines if line.strip().startswith("m1pipe ")]
    assert any(line.startswith(f"m1pipe {command}") for line in examples)
    assert "\b" not in "".join(lines) and "\\b" not in "".join(lines)


def test_the_table_of_models_is_shown_row_by_row() -> None:
    lines = CliRunner().invoke(cli, ["crossval", "--help"]).output.splitlines()
    rows = [line.split()[0] for line in lines if re.match(r"  \S.* {4,}\S", line)]
    assert rows[:5] == ["mean,", "ridge,", "raw", "pca", "pca_fold"]


@pytest.mark.parametrize("command", ["crossval", "train", "convert"])
def test_long_helps_have_sections_with_rare_options_last(command: str) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    headings = re.findall(r"^(\w+):$", text, re.M)
    assert headings[-1] == "More" and "Output" in headings and len(headings) >= 5
    assert "--force" in text.split("Output:")[1].split("\n\n")[0]
    rare = {"crossval": "--linear-rival", "train": "--micro-batch", "convert": "--thousands"}
    assert rare[command] in text.split("More:")[1]


def test_the_commands_stand_in_five_groups_of_at_most_thirty() -> None:
    text = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    headings = re.findall(r"^([\w ]+):$", text, re.M)
    assert headings == ["Options", *GROUPS] and len(GROUPS) == 5
    listed = re.findall(r"^  ([a-z]+)  ", text, re.M)
    assert listed == list(COMMANDS) and len(listed) <= 30


@pytest.mark.parametrize("command", list(COMMANDS))
def test_defaults_are_shown_in_one_way(command: str) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert "[default: (" not in text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian u.h5ad", "no such command 'trian': did you mean train?"),
        ("simulate count --out s", "no such command 'count': did you mean counts?"),
        ("train u.h5ad --out r --likelihood gausian", ": did you mean gaussian?"),
        ("train u.h5ad --out r --latnet 3", "--latent"),
        (
            "train u.h5ad --out r --epochs 0",
            "epochs: expected a number in [1, inf]; found 0",
        ),
        ("train u.h5ad --out r --lr=-1", "train: --lr: expected a number in (0, inf]; found -1.0"),
        ("crossval --x x.h5ad --folds 1 --out cv", "folds: expected a number in [2, inf]; found 1"),
        ("generate r --n 0 --out s.h5ad", "n: expected at least 1 sample; found 0"),
        ("generate r -n 5 --condition a:5 --out s.h5ad", "condition: expected COL=VALUE:N"),
        ("convert a.tsv b.h5ad --units cpn", ": did you mean cpm?"),
        ("convert a.tsv b.h5ad --units rsem", ": expected_count is counts, TPM is tpm"),
        ("jobs slrm train --study s.toml", ": did you mean slurm?"),
    ],
)
def test_usage_errors_leave_with_2_and_name_what_is_near(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(typed.split()) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_unknown_setting_names_the_nearest_and_where_all_are() -> None:
    with pytest.raises(
        InputError, match=r"unknown setting 'latnt'; all .*config\.json.*n_latent\?"
    ):
        build(EncoderConfig, {"latnt": 3}, where="c.toml")
