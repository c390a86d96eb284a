"""Pages of the site that are made when it is built: README, notebooks, and the reference.

Hooks of mkdocs (docs/site/mkdocs.yml). Nothing that is made here is kept in the repository.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

import m1pipe
from m1pipe.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]
NOTEBOOKS = "notebooks"
COMMANDS_HEAD = "# Commands\n\nWhat `m1pipe COMMAND --help` says.\n\n"
PYTHON_HEAD = """# Python

What the package's own name gives; then every module, but for those of the commands.

"""
STYLE = ".md-grid { max-width: 76rem; } .md-typeset pre > code { white-space: pre-wrap; }\n"


@event_priority(100)  # before the plugin that turns notebooks into pages
def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/, and what is made."""
    made = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "reference/commands.md": command_reference(),
        "reference/python.md": python_reference(),
    }
    made["site.css"] = STYLE
    worker = Path(__file__).with_name("iframe-worker.js")
    made[worker.name] = worker.read_text(encoding="utf-8")
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        where = (f"{NOTEBOOKS}/{path.name}", str(ROOT), config.site_dir)
        files.append(File(*where, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks as they are on the site; benchmarks are not on it: their paths alone."""
    text = markdown.replace("](../../notebooks/", "](../notebooks/")
    return re.sub(r"\[[^\]]+\]\((?:\.\./)+(benchmarks/[^)]+)\)", r"`\1`", text)


def command_reference() -> str:
    """Every command's help, groups with their parts."""
    context = click.Context(cli, info_name="m1pipe")
    return COMMANDS_HEAD + "".join(
        _command(cli.get_command(context, name), context, name, 2) for name in COMMANDS
    )


def _command(command: click.Command, parent: click.Context, name: str, level: int) -> str:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=96)
    text = command.get_help(context)
    head = f"{'#' * level} {context.command_path.removeprefix('m1pipe ')}\n\n"
    found = f"{head}```text\n{text}\n```\n\n"
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            found += _command(inner, context, part, level + 1)
    return found


def python_reference() -> str:
    """Public names by their homes, then every module that has public functions or classes."""
    public = "".join(
        f"::: {getattr(m1pipe, name).__module__}.{name}\n\n"
        for name in m1pipe.__all__
        if inspect.isclass(getattr(m1pipe, name)) or inspect.isfunction(getattr(m1pipe, name))
    )
    modules = [
        path
        for path in sorted((ROOT / "m1pipe").rglob("*.py"))
        if path.parent.name != "cli"
        and re.search(r"(?m)^(def|class) [a-zA-Z]", path.read_text(encoding="utf-8"))
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    return PYTHON_HEAD + public + "".join(f"::: {name}\n\n" for name in names)
