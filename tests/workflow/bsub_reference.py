"""A strict reader of #BSUB lines, after IBM's reference of bsub (LSF 10.1); LSF is not to be had.

It knows the options that m1pipe writes and refuses everything else. It cannot tell whether a
site's queues, limits and resources are as a script expects them.
"""

import re
import shlex

SIZE = r"\d+(KB|MB|GB)?"
PATH = r"(?!.*%(?![JI]))\S+"
INDICES = r"[1-9]\d*(-[1-9]\d*(:\d+)?)?"
VALUES = {
    "-J": rf"[A-Za-z][\w.-]{{0,4000}}(\[{INDICES}(,{INDICES})*\](%[1-9]\d*)?)?",
    "-o": PATH,
    "-e": PATH,
    "-q": r"[\w.-]+",
    "-P": r"[\w.-]+",
    "-n": r"[1-9]\d*(,[1-9]\d*)?",
    "-R": rf"(select\[[^\[\]]+\] ?|span\[(hosts=1|ptile=\d+)\] ?|rusage\[mem={SIZE}\] ?)+",
    "-M": SIZE,
    "-gpu": r"num=[1-9]\d*(:mode=(shared|exclusive_process))?(:j_exclusive=(yes|no))?",
    "-W": r"(\d+:)?\d+",
    "-wa": r"(SIG)?(USR1|USR2|TERM|INT|CHKPNT)",
    "-wt": r"(\d+:)?\d+",
    "-Q": r"(\d+|all|~\d+|EXCLUDE\(\d+\))( (\d+|~\d+|EXCLUDE\(\d+\)))*",
    "-w": r"[ \w().\"\[\]*&|!<>=,-]+",
}
FLAGS = ("-r", "-rn", "-N", "-B", "-ti", "-x")
OFTEN = ("-R",)


def read_options(text: str) -> dict[str, list[str]]:
    """Options of the #BSUB lines of a script (or of one line of a command) and their values.

    Raises
    ------
    ValueError
        On an option that is unknown, malformed, given twice or at odds with another.
    """
    lines = text.splitlines()
    if not lines[0].startswith("#!"):
        raise ValueError("bsub takes the shell from the first line")
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("#BSUB"):
            _read_line(line, found)
        elif line.lstrip().upper().startswith("#BSUB"):
            raise ValueError(f"not read by bsub: {line!r}")
    _check_together(found)
    return found


def _read_line(line: str, found: dict[str, list[str]]) -> None:
    if not line.startswith("#BSUB "):
        raise ValueError(f"a space is missing: {line!r}")
    words = shlex.split(line.removeprefix("#BSUB "))
    while words:
        option = words.pop(0)
        if option in found and option not in OFTEN:
            raise ValueError(f"{option} is given twice")
        if option in FLAGS:
            found[option] = []
        elif option not in VALUES:
            raise ValueError(f"unknown option {option!r} in {line!r}")
        elif not words or not re.fullmatch(VALUES[option], words[0]):
            raise ValueError(f"{option}: not as the reference has it: {words[:1]}")
        else:
            found.setdefault(option, []).append(words.pop(0))


def _check_together(found: dict[str, list[str]]) -> None:
    array = "[" in "".join(found.get("-J", []))
    for option in ("-o", "-e"):
        for path in found.get(option, []):
            if "%J" not in path or ("%I" in path) != array:
                raise ValueError(f"{option}: elements of an array need %J and %I, and only they %I")
    if ("-wa" in found) != ("-wt" in found):
        raise ValueError("-wa and -wt do nothing without each other")
    sections = re.findall(r"(select|span|rusage)\[", " ".join(found.get("-R", [])))
    if len(sections) != len(set(sections)):
        raise ValueError(f"-R: a section twice: {sections}")
    if "-W" in found and "-wt" in found and _minutes(found["-W"]) <= _minutes(found["-wt"]):
        raise ValueError("-wt: the warning comes before the job begins")
    if "-ti" in found and "-w" not in found:
        raise ValueError("-ti needs -w")


def _minutes(values: list[str]) -> int:
    hours, _, minutes = values[0].rpartition(":")
    return 60 * int(hours or 0) + int(minutes)
