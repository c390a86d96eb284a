"""Options of commands: made from the fields of configurations, and those that several share."""

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from m1pipe.config import CrossvalConfig
from m1pipe.console import folded
from m1pipe.errors import InputError, SettingError, did_you_mean
from m1pipe.settings import Config, build, read_config_file

MORE = "More"
LONGEST_CHOICE = 40  # characters; longer lists stand in the text


class Option(click.Option):
    """An option that knows its section of the help, and what stands for its default there."""

    def __init__(self, *args: Any, section: str = "", shown: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        if shown:
            self.help = f"{self.help or ''}  [default: {shown}]".strip()


option = partial(click.option, cls=Option)


def say(result: object) -> None:
    """Write a result to stdout, in lines that a terminal shows."""
    click.echo(folded(str(result)))


class Sections(click.Command):
    """A command with many options: in sections, rare ones last under `MORE`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections in the order of their first options."""
        found: dict[str, list[tuple[str, str]]] = {}
        for part in self.get_params(ctx):
            record = part.get_help_record(ctx)
            if isinstance(part, click.Option) and record is not None:
                found.setdefault(getattr(part, "section", "") or MORE, []).append(record)
        for name in sorted(found, key=lambda section: section == MORE):
            with formatter.section(name):
                formatter.write_dl(found[name])


class Commands(click.Group):
    """A group that suggests the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first argument."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"no such command {args[0]!r}{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands of a group, each with its whole first sentence."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=999))
                    for name, command in found
                    if command
                ]
            )


class OneOf(click.Choice[str]):
    """One of some names; the nearest is suggested, or what is meant by another's name."""

    def __init__(self, choices: Sequence[str], meant: Mapping[str, str] | None = None) -> None:
        super().__init__(choices)
        self.meant = meant or {}

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is said of a value that is none of them."""
        said = super().get_invalid_choice_message(value, ctx).rstrip(".")
        meant = [f": {text}" for name, text in self.meant.items() if name in str(value).lower()]
        return said + (did_you_mean(value, self.choices) or "".join(meant[:1]))


class Widths(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2
    """Layer widths such as "512" or "512,256"; "none" for no hidden layer."""

    name = "widths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Tuple of widths."""
        if isinstance(value, tuple):
            return value
        if value == "none":
            return ()
        try:
            return tuple(int(width) for width in str(value).split(","))
        except ValueError:
            self.fail(f"expected widths such as 512 or 512,256, or none; found {value!r}")


def is_own_gene(ctx: click.Context, param: click.Parameter, value: str | None) -> bool | None:
    """What `--head plain|own_gene` says; None where it is not given."""
    return None if value is None else value == "own_gene"


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2
    """Names separated by commas, such as "A,B"."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Tuple of names."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


WIDTHS, NAMES = Widths(), Names()
OUT = option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
FORCE = option("--force", is_flag=True, help="Overwrite the file.")
CONFIG = option(
    "--config",
    "config_file",
    metavar="FILE",
    help="These options as JSON or TOML.",
    section="Output",
)
ALIASES = option(
    "--aliases", type=click.Path(), metavar="TSV", help="Other names of genes: alias, name."
)
MIN_COVERAGE = option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=CrossvalConfig.min_coverage,
    show_default=True,
    help="Smallest share of the encoder's genes that must be found.",
)
_SOURCE_OPTIONS = (
    option(
        "--source",
        multiple=True,
        metavar="FILE",
        help="Other studies whose labels are used as well. May be given again.",
        section="Models",
    ),
    option("--source-label", metavar="COL", help="Their labels, matched by name.", shown="--label"),
    option(
        "--source-study",
        metavar="COL",
        help="The study of each of their samples.",
        shown="study, dataset, ..., or the file",
    ),
)
Command = TypeVar("Command", bound=Callable[..., Any])


def from_config(kind: type, names: str) -> Callable[[Command], Command]:
    """Options for fields of a configuration, or of its parts, where name, help and default stand.

    An option that is not typed is None, so that `m1pipe.settings.build` skips it.

    Parameters
    ----------
    kind : type
        A configuration whose fields are made by `m1pipe.settings.setting`.
    names : str
        Fields with spaces between them, in the order of the help.
    """
    parts = [f.type for f in dataclasses.fields(kind) if dataclasses.is_dataclass(f.type)]
    fields = {f.name: f for part in (*parts, kind) for f in dataclasses.fields(part)}

    def add(command: Command) -> Command:
        for name in reversed(names.split()):
            command = _option(fields[name])(command)
        return command

    return add


def name_sources(command: Command) -> Command:
    """Options that name labelled samples of other studies."""
    for add in reversed(_SOURCE_OPTIONS):
        command = add(command)
    return command


def through_model(command: Command) -> Command:
    """RUN, DATA and the options of a command that puts a file through a model."""
    options = (click.argument("run", type=click.Path()), click.argument("data", type=click.Path()))
    for option in reversed((*options, OUT, MIN_COVERAGE, ALIASES, FORCE)):
        command = option(command)
    return command


def configured(kind: type[Config], file: str | None, typed: Mapping[str, Any], name: str) -> Config:
    """Settings of a command: those of its --config FILE below those typed."""
    return usage_checked(kind, read_config_file(file) if file else {}, typed, where=file or name)


def usage_checked(kind: type[Config], *layers: Mapping[str, Any], where: str) -> Config:
    """Settings put together by `m1pipe.settings.build`: what cannot be is a usage error."""
    try:
        return build(kind, *layers, where=where)
    except InputError as error:
        raise SettingError(str(error)) from None


_AS_IT_IS = r"\A(?!\x08)(.*^ *m1pipe |\S[^\n]* {4})"


def keep_examples(command: click.Command) -> None:
    """Mark what help shows line by line: paragraphs with a command on a line, and tables."""
    blocks = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(
        f"\b\n{block}" if re.search(_AS_IT_IS, block, re.M | re.S) else block for block in blocks
    )
    for part in getattr(command, "commands", {}).values():
        keep_examples(part)


def _option(f: "dataclasses.Field[Any]") -> Callable[[Command], Command]:
    known = f.metadata
    flags = (known["option"] or "--" + f.name.replace("_", "-")).split()
    about = {"section": known["section"], "shown": known["shown"] or _shown(f.default)}
    if f.type is bool:
        return option(*flags, f.name, is_flag=True, default=None, help=known["text"], **about)
    kind, metavar, text = _kind(f.type), known["metavar"], known["text"]
    if isinstance(kind, OneOf) and len("|".join(kind.choices)) > LONGEST_CHOICE:
        metavar, text = "NAME", f"{text} One of {', '.join(kind.choices)}."
    return option(*flags, f.name, type=kind, metavar=metavar, help=text, **about)


def _kind(wanted: Any) -> Any:
    """Kind of option for the type of a field."""
    if get_origin(wanted) in (types.UnionType, Union):
        wanted = next(part for part in get_args(wanted) if part is not type(None))
    if get_origin(wanted) is Literal:
        return OneOf(get_args(wanted))
    if get_origin(wanted) is tuple:
        return WIDTHS if get_args(wanted)[0] is int else NAMES
    return wanted


def _shown(default: Any) -> str:
    """A default as it would be typed; nothing for what is left out."""
    if default is None or default is False or default == ():
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
