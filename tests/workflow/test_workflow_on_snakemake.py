"""jobs/snakemake drives a study: here by Snakemake's own executor, and by that for Slurm."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from m1pipe.workflow.pipeline import choose_tasks, run_study
from m1pipe.workflow.study import read_study

FOLDER = Path(__file__).parents[2] / "jobs/snakemake"
QUEUES = """
gpu_type = "a100"

[jobs.slurm]
account = "biology"
train.queue = "gpu"
extra = ["--qos=long"]

[jobs.lsf]
queue = "hpc"

[jobs.train]
gpus = 2
time = "4:00"
"""
Make = Callable[[Path], Path]
Snakemake = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def file(make_study: Make, tmp_path: Path) -> Path:
    """A study of seven jobs."""
    path = make_study(tmp_path)
    text = path.read_text().replace("[1, 2]", "[1]").replace("repeats = 2", "repeats = 1")
    path.write_text(text.replace("split.holdout = 0.25", "").replace("u.training", "u"))
    return path


@pytest.fixture
def snakemake(file: Path) -> Snakemake:
    """Snakemake on that study, in its folder."""
    if find_spec("snakemake") is None:
        pytest.skip("snakemake is not installed")

    def call(*options: str, system: str = "slurm") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(FOLDER / "Snakefile")]
        command += [*options, "--config", f"study={file.name}", f"system={system}"]
        here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=file.parent,
            env={**os.environ, "PATH": here},
            capture_output=True,
            text=True,
            timeout=500,
        )

    return call


def _folds(out: Path) -> dict[str, list[float]]:
    models = json.loads((out / "cv/summary.json").read_text())["models"]
    return {name: scores["folds"] for name, scores in models.items()}


def _logs(out: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((out / "logs").glob("*.log")))


def _asked(text: str, rule: str) -> dict[str, str]:
    """Resources that a dry run shows for a rule."""
    found = re.search(rf"rule {rule}:.*?threads: (\d+)\n\s+resources: (.*?)\n", text, re.S)
    assert found is not None, text
    asked = dict(re.findall(r"(\w+)=(.*?)(?:, (?=\w+=)|$)", found[2]))
    return {**asked, "threads": found[1]}


def test_jobs_ask_for_what_the_study_says(file: Path, snakemake: Snakemake) -> None:
    text = file.read_text().replace("cpus = 1", "cpus = 3")
    file.write_text(f"{text}{QUEUES}")
    done = snakemake("--dry-run", "--printshellcmds", "--cores", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    train = _asked(done.stdout, "train")
    wanted = {"threads": "3", "mem_mb": "1024", "runtime": "240", "gres": "gpu:a100:2"}
    wanted |= {"slurm_partition": "gpu", "slurm_account": "biology", "slurm_extra": "--qos=long"}
    assert {name: train[name] for name in wanted} == wanted
    assert "torchrun --standalone --nproc-per-node=2 -m m1pipe run study.toml" in done.stdout
    crossval = _asked(done.stdout, "crossval")
    assert crossval["runtime"] == "10"
    assert "gres" not in crossval
    asked = _asked(snakemake("--dry-run", "--cores", "8", system="lsf").stdout, "train")
    assert asked["lsf_queue"] == "hpc"
    assert asked["lsf_extra"] == '-R "select[a100]" -gpu "num=2:mode=exclusive_process"'


def test_a_folder_with_braces_is_refused(file: Path, snakemake: Snakemake) -> None:
    file.write_text(re.sub(r"^out = .*", 'out = "runs{x}"', file.read_text(), flags=re.M))
    done = snakemake("--dry-run", "--cores", "1")
    assert done.returncode != 0
    assert "runs{x}: expected no braces, which Snakemake takes for wildcards" in done.stdout


def test_the_profiles_are_one_but_for_the_queue() -> None:
    slurm, lsf = (FOLDER.joinpath(name, "config.yaml").read_text() for name in ("slurm", "lsf"))
    assert slurm.replace("slurm", "lsf") == lsf


@pytest.mark.slow
def test_a_study_by_snakemake_equals_one_in_this_process(
    file: Path, snakemake: Snakemake, make_study: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = snakemake("--cores", "2")
    out = file.parent / "runs"
    assert done.returncode == 0, done.stderr + _logs(out)
    copy = make_study(tmp_path_factory.mktemp("here"))
    copy.write_text(file.read_text())
    here = read_study(copy)
    run_study(here, choose_tasks(here))
    assert _folds(out).keys() == _folds(here.out).keys()
    for name, losses in _folds(out).items():  # heads are trained in one pass, or fold by fold
        assert losses == pytest.approx(_folds(here.out)[name], rel=1e-6)
    weights = [(folder / "vae1/model.safetensors").read_bytes() for folder in (out, here.out)]
    assert weights[0] == weights[1]
    assert (out / "cv/report.html").is_file()
    # What is not as the file says is refused by m1pipe, and nothing of it is removed.
    file.write_text(file.read_text().replace("n_latent = 3", "n_latent = 2"))
    again = snakemake("--cores", "1", "runs/snakemake/train-1")
    assert again.returncode != 0
    assert "model.n_latent: 3 there, 2 here: redo what is out of date with --force" in _logs(out)
    assert (out / "vae1/model.safetensors").read_bytes() == weights[0]


@pytest.mark.slow
def test_a_study_by_the_executor_for_slurm(
    file: Path, snakemake: Snakemake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = os.environ.get("M1PIPE_TEST_SLURM")
    if not conf:
        pytest.skip(
            "M1PIPE_TEST_SLURM is not set: it names the slurm.conf that tests/slurm/up wrote"
        )
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake is not installed for Slurm")
    monkeypatch.setenv("SLURM_CONF", conf)
    # The executor's own srun forgets SLURM_CONF, which other clusters do not need.
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin/srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    ask = ["--slurm-init-seconds-before-status-checks", "1", "--slurm-status-command", "squeue"]
    profile = ["--profile", str(FOLDER / "slurm"), "--slurm-no-account", "--retries", "0"]
    done = snakemake("runs/snakemake/train-1", *profile, *ask, "--latency-wait", "10")
    out = file.parent / "runs"
    assert done.returncode == 0, done.stderr + _logs(out)
    assert (out / "vae1/model.json").is_file()
    provenance = json.loads((out / "vae1/provenance.json").read_text())
    assert provenance["job_id"].isdecimal()
