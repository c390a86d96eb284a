"""Job scripts: what they ask for, that shells take them, and that the kept ones are these."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bsub_reference import read_options

from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.workflow.jobs import job_script
from m1pipe.workflow.resources import JOB_STAGES, SYSTEMS, System, read_resources
from m1pipe.workflow.study import Study, read_study
from m1pipe.workflow.tasks import stage_tasks

KEPT = Path(__file__).parents[2] / "jobs"
STAGES = ("train", "pipeline")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study that the scripts in jobs/ are of, without its data."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copy(KEPT / "study.toml", folder)
    return read_study(folder / "study.toml", files=False)


@pytest.fixture
def small(make_study: Callable[[Path], Path], tmp_path: Path) -> Callable[[str], Study]:
    """Maker of the small study with other lines in [jobs]."""

    def make(more: str) -> Study:
        file = make_study(tmp_path)
        file.write_text(file.read_text() + more)
        return read_study(file)

    return make


def _kept(system: System, stage: str) -> Path:
    suffix = {"slurm": "sbatch", "lsf": "bsub"}[system]
    return KEPT / system / ("pipeline.sh" if stage == "pipeline" else f"{stage}.{suffix}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_kept_scripts_are_what_the_command_prints(
    example: Study, system: System, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", system, stage, "--study", str(example.file)]) == 0
    assert capsys.readouterr().out == _kept(system, stage).read_text()
    assert {path.name for path in (KEPT / system).iterdir()} == {
        _kept(system, stage).name for stage in STAGES
    }


@pytest.mark.parametrize("spread", [False, True])
def test_shellcheck_has_nothing_to_say(
    small: Callable[[str], Study], tmp_path: Path, spread: bool
) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    study = small(
        'setup = ["source env.sh"]\ngpus = 2\ncontainer = "my images/m1.sif"' if spread else ""
    )
    files = []
    for system in SYSTEMS:
        for stage in ("convert", "train", "crossval", "gather", "pipeline"):
            files.append(tmp_path / f"{system}-{stage}.sh")
            files[-1].write_text(job_script(study, system, stage))
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_slurm_options_say_what_is_asked(small: Callable[[str], Study]) -> None:
    more = """
account = "p1"
train.gpus = 2
train.gpu_type = "a100"
train.queue = "gpu"
crossval = {at_once = 3, time = "30:05", warning = 10}
[jobs.lsf]
queue = "elsewhere"
"""
    study = small(more)
    train = job_script(study, "slurm", "train").splitlines()
    for option in (
        "--job-name=study-train", "--partition=gpu", "--account=p1", "--gres=gpu:a100:2",
        "--cpus-per-task=1", "--mem=1024M", "--time=00:10:00", "--array=1-2", "--requeue",
        "--signal=B:USR1@300", "--open-mode=append", "--output=runs/logs/%x_%A_%a.log",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in train
    assert "torchrun --standalone --nproc-per-node=2 -m m1pipe run" in "\n".join(train)
    crossval = job_script(study, "slurm", "crossval")
    assert "#SBATCH --array=1-4%3\n" in crossval
    assert "#SBATCH --time=30:05:00\n" in crossval
    assert "#SBATCH --signal=B:USR1@600\n" in crossval
    assert "--partition" not in crossval
    assert "--array" not in job_script(study, "slurm", "gather")


def test_lsf_options_are_as_the_reference_has_them(
    small: Callable[[str], Study], example: Study
) -> None:
    for stage in JOB_STAGES:
        read_options(job_script(example, "lsf", stage))
    study = small('gpus = 1\ngpu_type = "gpu32gb"\nat_once = 2\naccount = "p1"')
    found = read_options(job_script(study, "lsf", "crossval"))
    assert found == {
        "-J": ["study-crossval[1-4]%2"],
        "-o": ["runs/logs/study-crossval_%J_%I.out"],
        "-e": ["runs/logs/study-crossval_%J_%I.err"],
        "-P": ["p1"],
        "-n": ["1"],
        "-R": ["select[gpu32gb] span[hosts=1]", "rusage[mem=1024MB]"],
        "-gpu": ["num=1:mode=exclusive_process"],
        "-W": ["00:10"],
        "-wa": ["USR2"],
        "-wt": ["5"],
        "-Q": ["75"],
        "-r": [],
    }
    assert read_options(job_script(study, "lsf", "gather"))["-J"] == ["study-gather"]


def test_memory_is_of_the_job_in_slurm_and_of_a_core_in_lsf(small: Callable[[str], Study]) -> None:
    study = small('\ntrain = {cpus = 3, memory = "8G"}')
    assert "#SBATCH --mem=8192M\n" in job_script(study, "slurm", "train")
    assert "rusage[mem=2731MB]" in job_script(study, "lsf", "train")


@pytest.mark.parametrize(
    "line",
    [
        "#BSUB -W 4:00:00", "#BSUB -J name[0-4]", "#BSUB -gpu num=1", "#BSUB -Z 3",
        "#BSUB -W 1:00\n#BSUB -W 2:00", "#BSUB -wa USR2", "#BSUB -o log_%A.out", "#BSUB-n 2",
        '#BSUB -R "rusage[mem=4]" -R "rusage[mem=5]"', "#BSUB -J a[1-3] -o log_%J", "#BSUB -ti",
        "#BSUB -W 0:10 -wa USR2 -wt 10", " #BSUB -n 2", '#BSUB -R "span[host=1]"',
    ],
)  # fmt: skip
def test_the_reader_of_bsub_lines_is_strict(line: str) -> None:
    if line == "#BSUB -gpu num=1":
        assert read_options(f"#!/bin/bash\n{line}\n") == {"-gpu": ["num=1"]}
        return
    with pytest.raises(ValueError, match=r".+"):
        read_options(f"#!/bin/bash\n{line}\n")


def test_a_pipeline_waits_and_is_stopped_with_what_it_waits_for(example: Study) -> None:
    slurm = job_script(example, "slurm", "pipeline")
    asked = re.findall(r"^\} \| sbatch --parsable(.*)\n\)\n(\w+)=", slurm, re.MULTILINE)
    asked = [(stage, options) for options, stage in asked]
    assert slurm.count("while true") == 1
    wait = ' --dependency="afterok:{}" --kill-on-invalid-dep=yes'
    assert asked == [
        ("convert", ""),
        ("train", wait.format("$convert")),
        ("crossval", wait.format("$convert:$train")),
        ("gather", wait.format("$crossval")),
        ("generate", wait.format("$convert:$train")),
    ]
    lsf = job_script(example, "lsf", "pipeline")
    assert lsf.count("while true") == 1
    for words in re.findall(r"^\} \| bsub(.*)$", lsf, re.MULTILINE)[1:]:
        numbered = re.sub(r"\$\w+", "17", words)
        assert set(read_options(f"#!\n#BSUB{numbered}")) == {"-w", "-ti"}
    assert '-w "done($convert) && done($train)" -ti' in lsf


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("gpu = 1", r"jobs: unknown setting 'gpu'; all .* in docs/hpc\.md: did you mean gpus"),
        ("slurm = 3", "slurm: expected a table; found 3"),
        ("gpus = {}", r"gpus: expected a value; found \{\}"),
        ("gpus = -1", r"jobs \(slurm, train\): gpus: expected at least 0; found -1"),
        ('[jobs.train]\ntime = "4 h"', r"time: expected hours:minutes, such as 4:00; found '4 h'"),
        ('[jobs.train]\ntime = "0:05"', "time: expected more than the warning of 5 minutes"),
        ('[jobs.slurm]\nqueue = "a b"', "queue: expected one word; found 'a b'"),
        ('[jobs.slurm.train]\nmemory = "much"', "memory: expected a size"),
        ('setup = ["a\\nb"]', "expected single lines"),
        ('setup = "module load x"', "setup: expected a list of str; found 'module load x'"),
        ('extra = ["qos=long"]', "extra: expected options, such as --qos=long; found 'qos=long'"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    small: Callable[[str], Study], more: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_resources(small(more), "slurm", "train")


@pytest.mark.parametrize("system", SYSTEMS)
def test_environments_are_prepared_before_unset_variables_are_errors(
    example: Study, system: System
) -> None:
    lines = job_script(example, system, "train").splitlines()
    assert "set -eo pipefail" in lines
    assert lines.index("source venv/bin/activate") < lines.index("set -u")


def test_a_dry_run_reads_the_table_of_jobs(
    small: Callable[[str], Study], capsys: pytest.CaptureFixture[str]
) -> None:
    study = small('[jobs.lsf.gather]\ntime = "4 h"\n')
    assert run(["run", str(study.file), "--dry-run"]) == 1
    assert "jobs (lsf, gather): time: expected hours:minutes" in capsys.readouterr().err


def test_jobs_are_handed_over_with_their_data_alone(
    example: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", "slurm", "train", "--study", str(example.file), "--submit"]) == 1
    assert "expected a file; found no" in capsys.readouterr().err


def test_a_stage_that_the_study_lacks_is_refused(small: Callable[[str], Study]) -> None:
    with pytest.raises(InputError, match="expected something to generate"):
        job_script(small(""), "slurm", "generate")


def test_folds_that_the_data_decide_are_one_job(small: Callable[[str], Study]) -> None:
    study = small("")
    file = study.file
    file.write_text(file.read_text().replace("repeats = 2", 'leave_out = "tissue"'))
    study = read_study(file)
    assert "--array" not in job_script(study, "slurm", "crossval")
    assert list(stage_tasks(study, "gather")[0].inputs) == ["plan"]
