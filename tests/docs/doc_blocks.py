"""Every example of the documentation: fenced blocks of Markdown, examples of --help, notebooks."""

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import m1pipe
from m1pipe.cli.main import COMMANDS, cli

ROOT = Path(m1pipe.__file__).parent.parent
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "jobs/README.md", *(ROOT / "docs").rglob("*.md")]
)
LANGUAGES = ("sh", "python", "toml", "text")
_FENCE = re.compile(r"```(\S*)(?: title=\"(\S+)\")?")


@dataclass(frozen=True)
class Block:
    """A piece of a document that is set as code; `title` names the file whose content it is."""

    where: str
    section: str
    language: str
    title: str
    text: str


def markdown_blocks(document: str) -> list[Block]:
    """Fenced blocks of a document, in their order; code that is only indented is refused."""
    found: list[Block] = []
    section, fence, opened = "", None, 0
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        match = _FENCE.fullmatch(line)
        if fence is None and match:
            fence, opened = match, number
        elif line == "```" and fence is not None:
            text = "\n".join(lines[opened : number - 1])
            where = f"{document}:{opened + 1}"
            found.append(Block(where, section, fence[1], fence[2] or "", text))
            fence = None
        elif fence is None:
            section = line if line.startswith("#") else section
            after_space = number == 1 or not lines[number - 2].strip()
            assert not (line.startswith("    ") and after_space), (
                f"{document}:{number}: code stands between ```LANGUAGE and ```"
            )
    assert fence is None, f"{document}:{opened}: a block that is not closed"
    return found


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name, also those in groups."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for part, inner in command.commands.items():
                yield f"{name} {part}", inner


def help_block(name: str, command: click.Command) -> Block:
    """The lines of a command's --help that begin with m1pipe, with what continues them."""
    kept: list[str] = []
    inside = False  # a command, or what goes on with one
    for line in map(str.strip, inspect.cleandoc(command.help or "").splitlines()):
        continues = inside and kept[-1].endswith("\\")
        assert continues or not (inside and line.startswith("--")), (
            f"m1pipe {name} --help: a line goes on without a backslash before it: {line}"
        )
        inside = continues or line.startswith("m1pipe ")
        if inside:
            kept.append(line)
    return Block(f"m1pipe {name} --help", name, "sh", "", "\n".join(kept))


def notebook_blocks(path: Path) -> list[Block]:
    """What a notebook shows in its text, indented: commands, or Python."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    shown = [re.findall(r"(?m)(?:^    .*\n?)+", text) for text in texts]
    blocks = [inspect.cleandoc(block) for blocks in shown for block in blocks]
    return [
        Block(path.name, "", "python" if block.startswith("import ") else "sh", "", block)
        for block in blocks
    ]


def logical_lines(text: str) -> list[str]:
    """Lines of shell with their continuations joined, without comments and empty ones."""
    lines = text.replace("\\\n", " ").splitlines()
    bare = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [" ".join(line.split()) for line in bare if line]
