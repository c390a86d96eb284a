"""`m1pipe run`: every stage once, again only what is out of date."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.workflow import training_run as train_module
from m1pipe.workflow.pipeline import choose_tasks, plan_lines, run_study
from m1pipe.workflow.status import run_lines
from m1pipe.workflow.study import read_study

pytestmark = pytest.mark.usefixtures("figures_undrawn")

NAMES = [
    "convert-u", "split-u", "convert-x", "convert-y", "train-vae1", "train-vae2", "crossval",
    "gather",
]  # fmt: skip


def _run(file: Path, *, force: bool = False) -> list[str]:
    study = read_study(file)
    return run_study(study, choose_tasks(study), force=force)


def _numbers(file: Path) -> list[float]:
    """Losses of every model and fold."""
    summary = json.loads((file.parent / "runs" / "cv" / "summary.json").read_text())
    return [loss for model in summary["models"].values() for loss in model["folds"]]


@pytest.fixture(scope="module")
def done(make_study: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was run in one go."""
    file = make_study(tmp_path_factory.mktemp("study"))
    lines = _run(file)
    assert [line.split(":")[0] for line in lines] == NAMES
    return file


def test_a_second_run_has_nothing_to_do(done: Path) -> None:
    report = done.parent / "runs" / "cv" / "report.html"
    made = report.stat().st_mtime_ns
    assert _run(done) == [f"{name}: done" for name in NAMES]
    assert report.stat().st_mtime_ns == made
    (done.parent / "x.tsv").touch()
    assert plan_lines(read_study(done), choose_tasks(read_study(done)))[2].endswith(": done")


def test_tables_are_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study").mkdir()
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=["s1", "s2"]).to_csv(
        tmp_path / "study" / "x.tsv", sep="\t"
    )
    (tmp_path / "study" / "l.tsv").write_text("sample\tkind\ns1\tu\ns2\tv\n")
    text = '[data.x]\nsource = "x.tsv"\nunits = "counts"\nlabels = "l.tsv"\n'
    (tmp_path / "study" / "study.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "study")
    assert _run(Path("study.toml"))[0].startswith("convert-x: ")
    monkeypatch.chdir(tmp_path)
    assert _run(Path("study/study.toml")) == ["convert-x: done"]


def test_a_study_that_is_moved_is_up_to_date(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done.parent, tmp_path / "moved")
    file = tmp_path / "moved" / done.name
    assert _run(file) == [f"{name}: done" for name in NAMES]
    lines = {line.name: line for line in run_lines(file.parent / "runs", None)}
    assert {name: lines[name].state for name in NAMES} == dict.fromkeys(NAMES, "done")


def test_the_status_tells_of_every_task(done: Path) -> None:
    lines = {line.name: line for line in run_lines(done.parent / "runs", None)}
    assert {name: lines[name].state for name in NAMES} == dict.fromkeys(NAMES, "done")
    assert lines["train-vae1"].detail.startswith("epoch 3/3, loss ")
    assert lines["gather"].detail.endswith("cv/report.html")
    assert set(lines) == set(NAMES)


def test_tasks_of_an_array_give_the_same_numbers(
    done: Path, make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    study = read_study(file)
    for stage, n in (("convert", 3), ("train", 2), ("crossval", 4), ("gather", 1)):
        for element in reversed(range(1, n + 1)):
            run_study(study, choose_tasks(study, [stage], element=element))
        with pytest.raises(InputError, match=rf"task {n + 1} of {stage} \(there are {n}\)"):
            choose_tasks(study, [stage], element=n + 1)
    # heads of all folds are trained in one pass or fold by fold: equal to rounding
    assert _numbers(file) == pytest.approx(_numbers(done), rel=1e-6)
    assert _run(file)[-2:] == [f"crossval: {study.out}/cv: all folds done", "gather: done"]


def test_what_is_out_of_date_is_redone_only_when_told(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    _run(file)
    before = _numbers(file)
    file.write_text(file.read_text().replace("n_latent = 3", "n_latent = 2"))
    with pytest.raises(InputError, match=r"train-vae1: .*n_latent: 3 there, 2 here.*force"):
        _run(file)
    assert _numbers(file) == before
    study = read_study(file)
    plan = plan_lines(study, choose_tasks(study))[-2:]
    assert plan == [
        "crossval: out of date (train-vae1 is done again before)",
        "gather: out of date (crossval is done again before)",
    ]
    lines = _run(file, force=True)
    again = [line.split(":")[0] for line in lines if not line.endswith(": done")]
    assert again == ["train-vae1", "train-vae2", "crossval", "gather"]
    assert _numbers(file) != before


def test_a_changed_input_and_a_removed_result_are_seen(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    lines = (tmp_path / "x.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "x.tsv").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"convert-x: .*source: .*x\.tsv is another file than"):
        _run(file)
    study.path("y").unlink()
    plan = plan_lines(study, choose_tasks(study, ["convert"]))
    assert plan[-1] == "convert-y: to do"
    assert plan[2].startswith("convert-x: out of date (source: ")
    with open(study.path("u"), "ab") as handle:
        handle.write(b"x")
    plan = plan_lines(study, choose_tasks(study, ["convert"]))
    assert "u.h5ad is not as it was made" in plan[0]


def test_a_stopped_study_goes_on_and_says_so(
    make_study: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_study(tmp_path)
    trained = train_module.train_planned

    def with_signal(*arguments: object, **more: object) -> object:
        signal.raise_signal(signal.SIGUSR1)
        return trained(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "train_planned", with_signal)
    with pytest.raises(StoppedBySignalError, match="SIGUSR1 in epoch 1, after step 1"):
        _run(file)
    states = {line.name: (line.state, line.detail) for line in run_lines(tmp_path / "runs", None)}
    assert states["train-vae1"][0] == "stopped"
    assert "SIGUSR1" in states["train-vae1"][1]
    monkeypatch.undo()
    lines = _run(file)
    assert lines[3] == "convert-y: done"
    assert not lines[4].endswith(": done")


def test_a_failure_is_recorded_with_its_reason(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    (tmp_path / "x.tsv").write_text("sample\ta\nc1\tone\n")
    with pytest.raises(InputError, match="line 2"):
        _run(file)
    line = next(line for line in run_lines(tmp_path / "runs", None) if line.name == "convert-x")
    assert line.state == "failed"
    assert "line 2" in line.detail
    assert not (tmp_path / "runs" / "data" / "x.h5ad").exists()


def test_a_conversion_killed_before_its_record_is_begun_anew(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    study = read_study(make_study(tmp_path))
    tasks = choose_tasks(study, ["convert"])
    run_study(study, tasks)
    file = tmp_path / "runs" / "stages" / "convert-x.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "running"}))
    assert run_study(study, tasks)[2].startswith(f"convert-x: {study.path('x')}: 60 samples")


@pytest.mark.slow
def test_samples_are_generated_and_scored(
    make_study: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make_study(tmp_path)
    more = """
[generation]
run = "vae1"
n = 40
sampler = "prior"

[quality]
real = "u.training"
holdout = "u.held_out"
n_resamples = 2
n_permutations = 9
n_seeds = 1
"""
    file.write_text(file.read_text() + more)
    study = read_study(file)
    run_study(study, choose_tasks(study, ["convert"]))
    run_study(study, choose_tasks(study, ["train"], element=1))
    tasks = choose_tasks(study, ["generate", "quality"])
    lines = run_study(study, tasks)
    assert lines[0].startswith(f"generate: {study.out}/synthetic.h5ad: 40 synthetic samples")
    assert lines[1].startswith(f"quality: {study.out}/quality/quality.html: ")
    told: list[str] = []
    assert run_study(study, tasks, tell=told.append) == told
    assert told == ["generate: done", "quality: done"]
