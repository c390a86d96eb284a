"""Every generated script under bash, with names that a shell would like to run or to take apart."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from m1pipe.errors import InputError
from m1pipe.workflow.jobs import job_script, submit
from m1pipe.workflow.resources import SYSTEMS, System
from m1pipe.workflow.study import Study, read_study

NAMES = [
    "my runs", " leading", "trailing ", "two  blanks", "it's", 'say "so"', "'quoted'", '"', "'",
    "$(touch MARK)", "`touch MARK`", "a;touch MARK", "a&touch MARK", "a|touch MARK", "a>MARK",
    "<(touch MARK)", "$HOME", "${IFS}", "*", "?", "[a-z]", "{a,b}", "~", "-rf", "--help",
    "#comment", "!!", "100%", "%j", "=x", "a(b)", "back\\slash", "übung", "表", "a\u00a0b",
    "';touch MARK;'", '";touch MARK;"', "$'\\x41'", "JOB", "packjob",
]  # fmt: skip
CONTROL = ["a\nb", "a\ntouch MARK", "a\rb", "a\tb", "a\x1b[2Jb", "a\x7f", "a\u2028b", "a\x85b"]
STAGES = ("convert", "train", "crossval", "gather", "generate")
GENERATED = '\n[generation]\nrun = "vae1"\nn = 10\n'
RECORD = """#!/bin/bash
printf '%s\\0' "$@" >"$RECORDS/$(basename "$0").arguments"
"""
QUEUE = (
    RECORD
    + """n=$(($(ls "$RECORDS" | grep -c script) + 1))
cat >"$RECORDS/$n.script"
"""
)
CLIENTS = {
    "sbatch": QUEUE + 'echo "$n"\n',
    "bsub": QUEUE + 'echo "Job <$n> is submitted to queue <hpc>."\n',
    "m1pipe": RECORD,
    "torchrun": RECORD + "exit 1\n",
    "apptainer": RECORD,
    "scontrol": RECORD,
}
INDEX = {"slurm": "SLURM_ARRAY_TASK_ID", "lsf": "LSB_JOBINDEX"}


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of what the stand-ins for the queue's and for our own programs were given."""
    folder, programs = tmp_path / "records", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name, text in CLIENTS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("RECORDS", str(folder))
    return folder


@pytest.fixture
def named(make_study: Callable[[Path], Path], tmp_path: Path) -> Callable[..., Study]:
    """Maker of a study whose file, results, source and encoder data are of one name."""

    def make(name: str, *, out: str, more: str = "") -> Study:
        (tmp_path / "work").mkdir()
        text = make_study(tmp_path / "work").read_text().replace("\n[jobs]", GENERATED + "\n[jobs]")
        source = f"{name} source"
        (tmp_path / "work" / "u.tsv").rename(tmp_path / "work" / source)
        text = text.replace('out = "runs"', f"out = {json.dumps(out, ensure_ascii=False)}")
        text = text.replace('"u.tsv"', json.dumps(source, ensure_ascii=False))
        (tmp_path / "work" / "study.toml").unlink()
        file = tmp_path / "work" / f"{name}.toml"
        file.write_text(text + more, encoding="utf-8")
        return read_study(file)

    return make


def _arguments(records: Path, program: str) -> list[str]:
    return (records / f"{program}.arguments").read_text(encoding="utf-8").split("\0")[:-1]


def _carried(system: System, name: str) -> bool:
    """Whether the queueing system can be told such a place, by what its reader is known to do."""
    if system == "slurm":
        return "\\" not in name and "packjob" not in name
    return not any(character in name for character in "\"'\\$`%")


def _output(script: str, system: System) -> list[str]:
    """Places of the logs as the system's reader takes the lines apart."""
    mark = "#SBATCH " if system == "slurm" else "#BSUB "
    lines = [line.removeprefix(mark) for line in script.splitlines() if line.startswith(mark)]
    words = [word for line in lines for word in shlex.split(line, comments=True)]
    if system == "slurm":
        found = [w.removeprefix("--output=") for w in words if w.startswith("--output=")]
        return [word.replace("%%", "%") for word in found]
    return [words[i + 1] for i, word in enumerate(words) if word in ("-o", "-e")]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs_and_each_path_arrives_whole(
    named: Callable[..., Study], records: Path, name: str, system: System
) -> None:
    out = name if _carried(system, name) else "runs"
    study = named(name, out=out)
    before = {path.name for path in study.folder.iterdir()}
    assert len(before) == 4
    for stage in STAGES:
        script = job_script(study, system, stage)
        for place in _output(script, system):
            assert os.path.normpath(os.path.dirname(place)) == os.path.join(out, "logs")
        (records / "m1pipe.arguments").unlink(missing_ok=True)
        _bash(script, study, system)
        words = _arguments(records, "m1pipe")
        assert words[0] == "run"
        assert os.path.normpath(words[1]) == f"{name}.toml"
        assert words[2:4] == ["--stage", stage]
    assert {path.name for path in study.folder.iterdir()} == before
    jobs = submit(study, system, "pipeline")
    assert jobs == [(stage, str(i)) for i, stage in enumerate(STAGES, start=1)]
    for stage, number in jobs:
        text = (records / f"{number}.script").read_text(encoding="utf-8")
        assert text == job_script(study, system, stage)
    assert (study.out / "logs").is_dir()
    assert {path.name for path in study.folder.iterdir()} == before | {out}


def _bash(script: str, study: Study, system: System) -> int:
    env = {**os.environ, INDEX[system]: "1", "SLURM_JOB_ID": "7"}
    return subprocess.run(
        ["bash"], input=script, cwd=study.folder, env=env, encoding="utf-8", timeout=60
    ).returncode


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_the_queue_cannot_be_told_is_refused(
    named: Callable[..., Study], name: str, system: System
) -> None:
    study = named("study", out=name)
    if _carried(system, name):
        assert len(_output(job_script(study, system, "gather"), system)) == len(
            ["-o"] if system == "slurm" else ["-o", "-e"]
        )
        return
    for stage in ("gather", "pipeline"):
        with pytest.raises(InputError, match=f"out: expected a name that {system} can be told"):
            job_script(study, system, stage)


@pytest.mark.parametrize("name", [n for n in NAMES if _carried("slurm", n)])
def test_workers_status_and_image_are_found_under_their_names(
    named: Callable[..., Study], records: Path, name: str
) -> None:
    study = named(name, out=name, more="gpus = 2\n")
    run = study.out / "vae1"
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"state": "stopped"}')
    assert _bash(job_script(study, "slurm", "train"), study, "slurm") == 75
    assert _arguments(records, "torchrun")[:4] == [
        "--standalone", "--nproc-per-node=2", "-m", "m1pipe",
    ]  # fmt: skip
    (run / "status.json").write_text('{"state": "failed"}')
    assert _bash(job_script(study, "slurm", "train"), study, "slurm") == 1
    image = json.dumps(name, ensure_ascii=False)
    study.file.write_text(study.file.read_text() + f"container = {image}\n", encoding="utf-8")
    _bash(job_script(read_study(study.file), "slurm", "gather"), study, "slurm")
    words = _arguments(records, "apptainer")
    assert words[:2] == ["exec", "--nv"]
    assert os.path.normpath(words[2]) == name
    assert words[3:5] == ["m1pipe", "run"]


@pytest.mark.parametrize("name", CONTROL)
def test_control_characters_are_refused_when_the_study_is_read(
    make_study: Callable[[Path], Path], tmp_path: Path, name: str
) -> None:
    text = make_study(tmp_path).read_text()
    escaped = json.dumps(name)
    for before, after in (
        ('out = "runs"', f"out = {escaped}"),
        ('source = "u.tsv"', f"source = {escaped}"),
        ("[jobs]", f"[jobs]\ncontainer = {escaped}"),
        ("[jobs]", f"[jobs]\nextra = [{escaped}]"),
        ("[encoders.vae]", f"[encoders.{escaped}]"),
        ("[encoders.vae]", f"[encoders.vae]\ncondition = {escaped}"),
    ):
        assert before in text
        (tmp_path / "study.toml").write_text(text.replace(before, after))
        with pytest.raises(InputError, match="single lines without control characters"):
            read_study(tmp_path / "study.toml")
    odd = tmp_path / f"{name}.toml"
    odd.write_text(text)
    with pytest.raises(InputError, match="the file's name: expected single lines") as error:
        read_study(odd)
    assert name not in str(error.value)


def test_a_condition_may_go_over_several_lines(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    more = '[data.u]\nwhere = """tissue == "a"\n and x > 3"""'
    file.write_text(file.read_text().replace("[data.u]", more))
    convert = read_study(file).data["u"].convert
    assert convert is not None and convert.where == 'tissue == "a"\n and x > 3'


def test_the_environment_is_made_before_unset_variables_are_faults(
    named: Callable[..., Study], records: Path
) -> None:
    study = named("study", out="runs", more="setup = ['echo \"$NOT_SET_ANYWHERE\" >made']\n")
    assert _bash(job_script(study, "slurm", "gather"), study, "slurm") == 0
    assert (study.folder / "made").read_text() == "\n"
    (records / "m1pipe.arguments").unlink()
    text = study.file.read_text().replace("echo", "false; echo")
    study.file.write_text(text)
    assert _bash(job_script(read_study(study.file), "slurm", "gather"), study, "slurm") == 1
    assert not (records / "m1pipe.arguments").exists()


def test_a_line_of_setup_cannot_end_the_script_that_holds_it(
    named: Callable[..., Study], records: Path
) -> None:
    study = named("study", out="runs", more='setup = ["JOB", "touch MARK"]\n')
    submit(study, "slurm", "pipeline")
    assert not (study.folder / "MARK").exists()
    assert "\nJOB\ntouch MARK\n" in (records / "1.script").read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("2024 study", "study_2024_study"), ("übung", "study__bung"), ("a b", "a_b")],
)
def test_a_file_gives_its_jobs_a_name_that_queues_take(
    named: Callable[..., Study], name: str, expected: str
) -> None:
    script = job_script(named(name, out="runs"), "slurm", "gather")
    assert f"#SBATCH --job-name={expected}-gather\n" in script
