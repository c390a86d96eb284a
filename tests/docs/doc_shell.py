"""Shell blocks run by bash, in which `m1pipe` is this process: no start of Python a command."""

import io
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from m1pipe.cli.main import run
from m1pipe.errors import M1Warning

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
    printed = folder / ".printed"
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
            replies.write(f"{code}\n")
            replies.flush()
    assert shell.wait() == 0, f"{text}\n{printed.read_text()}\n{errors.getvalue()}"
    return printed.read_text(encoding="utf-8")


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
