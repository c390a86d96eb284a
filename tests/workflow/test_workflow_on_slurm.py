"""A study on a real Slurm of one node: tests/slurm/up starts it, M1PIPE_TEST_SLURM names it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from m1pipe.workflow.jobs import job_script, submit
from m1pipe.workflow.pipeline import choose_tasks, run_study
from m1pipe.workflow.resources import JOB_STAGES
from m1pipe.workflow.status import RunLine, ask_queue, run_lines
from m1pipe.workflow.study import read_study

pytestmark = pytest.mark.slow
PATIENCE = 240
NOT_BEGUN, NOT_HEARD = "training did not begin", "the signal was not heard"
REASON = "M1PIPE_TEST_SLURM is not set: it names the slurm.conf that tests/slurm/up wrote"
LONG = "epochs = 300\npatience = 0\nvalidation = 0.0\n"
MORE = 'train.gpus = 2\ntrain.memory = "3G"\n'  # the launcher and two processes, each with torch
Make = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def _queue(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = os.environ.get("M1PIPE_TEST_SLURM")
    if not conf:
        pytest.skip(REASON)
    monkeypatch.setenv("SLURM_CONF", conf)


@pytest.fixture
def file(make_study: Make, tmp_path: Path) -> Path:
    """A study whose jobs find this environment."""
    path = make_study(tmp_path)
    setup = f'setup = ["export PATH={Path(sys.executable).parent}:$PATH"]\n'
    path.write_text(path.read_text() + setup)
    return path


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def _wait(until: Callable[[], object], what: str, file: Path | None = None) -> None:
    """Poll; where the logs of a study's jobs are given, no longer than there are jobs."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        if file is not None and not _ask("squeue", "--noheader").strip():
            assert until(), f"{what}\n{_logs(file)}"
        assert time.monotonic() < deadline, f"{what}\n{_ask('squeue')}"
        time.sleep(0.5)


def _wait_for(jobs: list[tuple[str, str]]) -> None:
    """Until none of the jobs is in the queue."""
    numbers = ",".join(number for _, number in jobs)
    command = ("squeue", "--noheader", f"--jobs={numbers}")
    _wait(lambda: not _ask(*command).strip(), "the jobs did not end")


def _lines(file: Path) -> dict[str, RunLine]:
    return {line.name: line for line in run_lines(file.parent / "runs", ask_queue())}


def _logs(file: Path) -> str:
    return "\n".join(p.read_text() for p in sorted((file.parent / "runs" / "logs").iterdir()))


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_array_and_its_gather_equal_a_run_in_one_process(
    file: Path, make_study: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    jobs = submit(read_study(file), "slurm", "pipeline")
    assert [stage for stage, _ in jobs] == ["convert", "train", "crossval", "gather"]
    assert _lines(file)["gather"].state == "queued"
    assert "Dependency" in _lines(file)["gather"].detail
    here = read_study(make_study(tmp_path_factory.mktemp("here")))
    run_study(here, choose_tasks(here))
    _wait_for(jobs)
    assert {line.state for line in _lines(file).values()} == {"done"}, _logs(file)
    there = file.parent / "runs"
    models = [
        json.loads((out / "cv" / "summary.json").read_text())["models"] for out in (there, here.out)
    ]
    assert list(models[0]) == list(models[1])
    for name, scores in models[0].items():  # heads are trained in one pass, or fold by fold
        assert scores["folds"] == pytest.approx(models[1][name]["folds"], rel=1e-6)
    assert (there / "cv" / "report.html").exists()
    for run in ("vae1", "vae2"):
        assert _weights(there / run) == _weights(here.out / run)
        status = json.loads((there / run / "status.json").read_text())
        assert status["job_id"].startswith(f"{dict(jobs)['train']}_")


def test_a_job_signalled_and_requeued_ends_with_the_same_weights(file: Path) -> None:
    file.write_text(file.read_text().replace("epochs = 3\nbatch", f"{LONG}batch"))
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    jobs = submit(study, "slurm", "train")
    status = study.out / "vae2" / "status.json"
    _wait(lambda: status.exists() and "epoch" in status.read_text(), NOT_BEGUN, file)
    _ask("scancel", "--signal=USR1", "--batch", f"{jobs[0][1]}_2")
    _wait(lambda: json.loads(status.read_text())["state"] != "running", NOT_HEARD, file)
    assert json.loads(status.read_text())["state"] == "stopped", _logs(file)
    _wait(lambda: _lines(file)["train-vae2"].state == "queued", "it was not requeued")
    assert _lines(file)["train-vae2"].detail.startswith("epoch ")
    _wait_for(jobs)
    assert {line.state for line in _lines(file).values()} == {"done"}, _logs(file)
    provenance = json.loads((study.out / "vae2" / "provenance.json").read_text())
    assert [again["job_id"] for again in provenance["resumed"]] == [f"{jobs[0][1]}_2"]
    log = (study.out / "logs" / f"study-train_{jobs[0][1]}_2.log").read_text()
    assert "stopped by SIGUSR1 in epoch" in log
    assert "resumed after epoch" in log
    other = json.loads((study.out / "vae1" / "provenance.json").read_text())
    assert "resumed" not in other, "the other task of the array was disturbed"
    there = _weights(study.out / "vae2")
    shutil.rmtree(study.out / "vae2")
    run_study(study, choose_tasks(study, ["train"], element=2))
    assert _weights(study.out / "vae2") == there


def test_two_processes_are_warned_and_requeued(file: Path) -> None:
    text = file.read_text().replace("seeds = [1, 2]", "seeds = [1]") + MORE
    file.write_text(text.replace("epochs = 3\nbatch", f"{LONG}batch_norm = false\nbatch"))
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    jobs = submit(study, "slurm", "train")
    status = study.out / "vae1" / "status.json"
    _wait(lambda: status.exists() and "epoch" in status.read_text(), NOT_BEGUN, file)
    _ask("scancel", "--signal=USR1", "--batch", jobs[0][1])
    _wait(lambda: json.loads(status.read_text())["state"] != "running", NOT_HEARD, file)
    assert json.loads(status.read_text())["state"] == "stopped", _logs(file)
    _wait_for(jobs)
    assert json.loads(status.read_text())["state"] == "done", _logs(file)
    provenance = json.loads((study.out / "vae1" / "provenance.json").read_text())
    assert [again["job_id"] for again in provenance["resumed"]] == [jobs[0][1]]


def test_torchrun_under_srun(file: Path) -> None:
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    launcher = ["torchrun", "--standalone", "--nproc-per-node=2", "-m", "m1pipe"]
    command = ["run", str(file), "--stage", "train", "--task", "1"]
    done = subprocess.run(
        [
            "srun",
            "--ntasks=1",
            "--cpus-per-task=2",
            "--mem=3G",
            "--gres=gpu:2",
            *launcher,
            *command,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train-vae1: ") == 1
    assert _lines(file)["train-vae1"].state == "done"


def test_a_cancelled_job_is_not_requeued(file: Path) -> None:
    file.write_text(file.read_text().replace("epochs = 3\nbatch", f"{LONG}batch"))
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    jobs = submit(study, "slurm", "train")
    status = study.out / "vae1" / "status.json"
    _wait(lambda: status.exists() and "epoch" in status.read_text(), NOT_BEGUN, file)
    _ask("scancel", jobs[0][1])
    _wait_for(jobs)
    time.sleep(1)
    assert not _ask("squeue", "--noheader", f"--jobs={jobs[0][1]}").strip()
    assert _lines(file)["train-vae1"].state in ("stopped", "lost")


def test_a_failed_stage_stops_those_after_it_and_says_why(file: Path) -> None:
    (file.parent / "x.tsv").write_text("sample\ta\nc1\tone\n")
    _wait_for(submit(read_study(file), "slurm", "pipeline"))
    lines = _lines(file)
    assert lines["convert-x"].state == "failed"
    assert "line 2" in lines["convert-x"].detail
    for name in ("train-vae1", "crossval-r0-f0", "gather"):
        assert lines[name].state == "lost"
        assert lines[name].detail.endswith("never began: convert-x failed")
    assert not (file.parent / "runs" / "vae1").exists()


@pytest.mark.parametrize("gpus", [0, 2])
def test_slurm_accepts_every_script(file: Path, gpus: int) -> None:
    more = f"gpus = {gpus}\nat_once = 2\n[quality]\nreal='x'\nsynthetic='x'\nholdout='y'\n"
    file.write_text(file.read_text() + more)
    study = read_study(file)
    for stage in JOB_STAGES:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=job_script(study, "slurm", stage),
            capture_output=True,
            text=True,
            cwd=file.parent,
            timeout=20,
        )
        assert done.returncode == 0, (stage, done.stderr)
        assert "to start at" in done.stderr
