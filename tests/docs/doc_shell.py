"""Shell blocks run by bash, in which `m1pipe` is this process: no start of Python a command."""

import io
import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from m1pipe.cli.main import run
from m1pipe.console import LINE
from m1pipe.errors import M1Warning

_FOLDERS = re.compile(r"[^\s/]*/(?=[^\s/])")
_PRELUDE = """
set -euo pipefail
m1pipe() {{
    printf '%s\\0' "$@" "" >&{call}
    local code; read -r code <&{reply}
    cat {out}
    return $code
}}
"""


def run_shell(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a block in `folder`, stopping at the first failure, and return what it printed.

    `m1pipe` hands its arguments to this process and waits for the exit code.
    """
    monkeypatch.chdir(folder)
    call_read, call_write = os.pipe()
    reply_read, reply_write = os.pipe()
    out, errors = folder / ".said", io.StringIO()
    prelude = _PRELUDE.format(call=call_write, reply=reply_read, out=out)
    printed, long = folder / ".printed", list[str]()
    with printed.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-c", prelude + text],
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=(call_write, reply_read),
        )
    os.close(call_write)
    os.close(reply_read)
    with open(call_read, encoding="utf-8") as calls, open(reply_write, "w") as replies:
        for arguments in _arguments(calls):
            said = io.StringIO()
            with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(errors):
                warnings.simplefilter("ignore", M1Warning)
                code = run(arguments)
            out.write_text(said.getvalue(), encoding="utf-8")
            if arguments[0] != "jobs":  # which prints a script
                long += too_long(said.getvalue())
            replies.write(f"{code}\n")
            replies.flush()
    assert shell.wait() == 0, f"{text}\n{printed.read_text()}\n{errors.getvalue()}"
    assert not [*long, *too_long(errors.getvalue())], text
    return printed.read_text(encoding="utf-8")


def too_long(said: str) -> list[str]:
    """Lines that a terminal would break, folders of paths not counted.

    >>> too_long("a/long/" * 20 + "path") == too_long("word " * 24) == []
    True
    >>> len(too_long("word " * 25 + "."))
    1
    """
    return [line for line in said.splitlines() if len(_FOLDERS.sub("", line)) > LINE]


def _arguments(calls: TextIO) -> Iterator[list[str]]:
    """Arguments of one call after another, until the shell has ended."""
    arguments, word = [], ""
    while character := calls.read(1):
        if character != "\0":
            word += character
        elif word:
            arguments.append(word)
            word = ""
        else:
            yield arguments
            arguments = []
