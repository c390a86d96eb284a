"""LSF without LSF: a stand-in bsub takes the scripts, bash runs their bodies with LSB_* set."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bsub_reference import read_options

from m1pipe.errors import EXIT_RESUMABLE, InputError
from m1pipe.workflow.jobs import job_script, submit
from m1pipe.workflow.pipeline import choose_tasks, run_study
from m1pipe.workflow.status import ask_queue, run_lines
from m1pipe.workflow.study import read_study

LONG = "epochs = 300\npatience = 0\nvalidation = 0.0\n"
BSUB = """#!/bin/bash
n=$(($(cat {folder}/last 2>/dev/null || echo 100) + 1))
echo $n >{folder}/last
echo "$@" >{folder}/$n.options
cat >{folder}/$n.script
echo "Job <$n> is submitted to queue <hpc>."
"""
BJOBS = """#!/bin/bash
echo "$@" >{folder}/bjobs.options
echo "101|0|RUN|-"
echo "102|2|PEND|Job dependency condition not satisfied"
"""


@pytest.fixture
def file(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    path = make_study(tmp_path)
    setup = f'setup = ["export PATH={Path(sys.executable).parent}:$PATH"]\n'
    path.write_text(path.read_text() + setup)
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which the stand-in keeps what it was given; no other queue is found."""
    folder = tmp_path / "lsf"
    folder.mkdir()
    for name, text in (("bsub", BSUB), ("bjobs", BJOBS)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return folder


def test_a_pipeline_is_submitted_in_order(file: Path, stand_in: Path) -> None:
    study = read_study(file)
    jobs = submit(study, "lsf", "pipeline")
    assert jobs == [("convert", "101"), ("train", "102"), ("crossval", "103"), ("gather", "104")]
    options = [(stand_in / f"{n}.options").read_text().strip() for n in range(101, 105)]
    assert options == [
        "", "-w done(101) -ti", "-w done(101) && done(102) -ti", "-w done(103) -ti",
    ]  # fmt: skip
    for stage, number in jobs:
        script = (stand_in / f"{number}.script").read_text()
        assert script == job_script(study, "lsf", stage)
        assert "-J" in read_options(script)
    assert (file.parent / "runs" / "logs").is_dir()


def test_one_stage_is_submitted_and_its_tasks_are_queued(file: Path, stand_in: Path) -> None:
    assert submit(read_study(file), "lsf", "train") == [("train", "101")]
    record = json.loads((file.parent / "runs" / "stages" / "train-vae2.json").read_text())
    assert (record["state"], record["job_id"]) == ("queued", "101[2]")


def test_the_queue_is_asked_as_bjobs_wants_it(file: Path, stand_in: Path) -> None:
    found = {job: entry for job, entry in (ask_queue() or {}).items() if "[" in job or job == "101"}
    assert found == {
        "101": None,
        "102[2]": "Job dependency condition not satisfied",
    }
    asked = (stand_in / "bjobs.options").read_text().strip()
    assert asked == "-noheader -o jobid jobindex stat pend_reason delimiter='|'"
    submit(read_study(file), "lsf", "pipeline")
    lines = {line.name: line for line in run_lines(file.parent / "runs", found)}
    assert lines["train-vae2"].state == "queued"
    assert lines["train-vae2"].detail == "job 102[2], Job dependency condition not satisfied"


def test_a_refusal_is_passed_on(file: Path, stand_in: Path) -> None:
    refusal = "echo 'hpc: No such queue. Job not submitted.' >&2"
    (stand_in / "bsub").write_text(f"#!/bin/bash\n{refusal}\nexit 255\n")
    with pytest.raises(InputError, match="bsub: the queue refused: hpc: No such queue"):
        submit(read_study(file), "lsf", "gather")
    taken = (
        f'[ -e "{file.parent}/taken" ] && {{ {refusal}; exit 255; }}; touch "{file.parent}/taken"'
    )
    accepts = "cat >/dev/null; echo 'Job <7> is submitted to queue <hpc>.'"
    (stand_in / "bsub").write_text(f"#!/bin/bash\n{taken}\n{accepts}\n")
    with pytest.raises(
        InputError, match=r"refused: hpc.*already submitted: convert, which bkill 7 "
    ):
        submit(read_study(file), "lsf", "pipeline")
    states = {line.name: line for line in run_lines(file.parent / "runs", {"7[1]": None})}
    assert states["convert-u"][1:] == ("running", "job 7[1], starting")
    assert states["convert-x"].state == "lost"
    assert states["convert-x"].detail.endswith("runs/logs may say why")
    (stand_in / "bsub").unlink()
    with pytest.raises(InputError, match="bsub: expected this command of the queue; found none"):
        submit(read_study(file), "lsf", "gather")


@pytest.mark.slow
def test_the_body_runs_is_warned_and_goes_on(file: Path) -> None:
    file.write_text(file.read_text().replace("epochs = 3\nbatch", f"{LONG}batch"))
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    script = job_script(study, "lsf", "train")
    (file.parent / "train.bsub").write_text(script)
    command = ["bash", "train.bsub"]
    env = {**os.environ, "LSB_JOBID": "77", "LSB_JOBINDEX": "2"}
    first = subprocess.Popen(command, cwd=file.parent, env=env, start_new_session=True)
    status = study.out / "vae2" / "status.json"
    deadline = time.monotonic() + 120
    while not (status.exists() and "epoch" in status.read_text()):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # bsub -wa sends its signal to every process of the job
    subprocess.run(["pkill", "-USR2", "--session", str(first.pid)], check=True)
    assert first.wait(timeout=60) == EXIT_RESUMABLE
    assert json.loads(status.read_text())["state"] == "stopped"
    assert json.loads(status.read_text())["job_id"] == "77[2]"
    subprocess.run(command, cwd=file.parent, env=env, check=True, timeout=240)
    assert json.loads(status.read_text())["state"] == "done"
    there = (study.out / "vae2" / "model.safetensors").read_bytes()
    shutil.rmtree(study.out / "vae2")
    run_study(study, choose_tasks(study, ["train"], element=2))
    assert (study.out / "vae2" / "model.safetensors").read_bytes() == there


@pytest.mark.slow
def test_the_body_ends_with_the_code_of_a_failure(file: Path) -> None:
    (file.parent / "x.tsv").write_text("sample\ta\nc1\tone\n")
    (file.parent / "convert.bsub").write_text(job_script(read_study(file), "lsf", "convert"))
    env = {**os.environ, "LSB_JOBID": "77", "LSB_JOBINDEX": "2"}
    done = subprocess.run(
        ["bash", "convert.bsub"], cwd=file.parent, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "line 2" in done.stderr
