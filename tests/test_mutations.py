"""Files changed at random: the right result or one line; the script that does ten thousand."""

import json
import os
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from scripts import load_script

from m1pipe.atomic import clear, foreign_file
from m1pipe.workflow import crossval_run, final_model, run_folder, sweep_run, training_run

N_CASES = int(os.environ.get("M1PIPE_MUTATIONS", "48"))


@pytest.fixture(scope="module")
def mutate() -> ModuleType:
    """The script; its results are kept in benchmarks/results."""
    return load_script("mutate")


@pytest.mark.slow
def test_every_case_ends_in_the_right_result_or_one_line(
    mutate: ModuleType, tmp_path: Path
) -> None:
    found = mutate.run_cases(tmp_path, N_CASES, seed=7)
    assert sum(sum(kind.values()) for kind in found["outcomes"].values()) == N_CASES
    assert found["wrong"] == []


@pytest.mark.parametrize("name", ["a.json", "a.tsv", "a.h5", "a.safetensors"])
def test_a_file_is_changed_and_the_seed_repeats_it(
    mutate: ModuleType, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".h5":
        with h5py.File(path, "w", track_order=True) as file:
            file["x"] = np.arange(20.0)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"a": [1, 2], "b": {"c": "text"}}))
    else:
        path.write_bytes(b"s\ta\tb\nx\t1\t2\ny\t3\t4\n" * 5)
    whole = path.read_bytes()
    found = []
    for _ in range(2):
        path.write_bytes(whole)
        assert mutate.mutate(path, np.random.default_rng(5)) != "none"
        found.append(path.read_bytes())
    assert found[0] != whole
    if path.suffix != ".h5":  # HDF5 keeps times
        assert found[0] == found[1]


def test_the_judge_knows_right_from_wrong(mutate: ModuleType, tmp_path: Path) -> None:
    here, world = tmp_path / "case", tmp_path / "world"
    for place in (here, world):
        place.mkdir()
        (place / "a.json").write_text('{"a": 1}')
    kind = mutate.Kind("k", ("a.json",), (), lambda folder: (folder / "a.json").read_text())
    wanted = mutate._digest(lambda: '{"a": 1}')

    def judged(code: int, said: str = "", text: str = '{"a": 1}') -> str:
        (here / "stderr").write_text(said)
        (here / "a.json").write_text(text)
        return str(mutate.judge(kind, here, here / "a.json", code, wanted)[0])

    assert judged(0) == "equal"
    assert judged(0, text='{"a": 2}') == "edited value"
    assert judged(0, text='{"b": 1}') == "silent change"
    assert judged(0, text='{"a"') == "silent change"
    assert judged(1, "m1pipe: error: a line\n") == "refused"
    assert judged(1, "Traceback\nm1pipe: error: a line\n") == "not one line"
    assert judged(1, "m1pipe: error: a\nm1pipe: error: b\n") == "not one line"
    assert judged(70, "Traceback") == "exit 70"
    assert judged(-14) == "hang"
    assert judged(-11) == "crash"
    with_reader = mutate.Kind("k", ("a.json",), (), kind.result, lambda folder: '{"a": 2}')
    (here / "a.json").write_text('{"a": 2}')
    assert mutate.judge(with_reader, here, here / "a.json", 0, wanted)[0] == "faithful"


@pytest.mark.slow
def test_each_command_knows_every_file_that_it_writes(tmp_path: Path) -> None:
    world = load_script("world")
    code, _ = world.in_child(lambda: world.make_world(tmp_path) or 0, tmp_path)
    assert code == 0, (tmp_path / "stderr").read_text()
    own = {
        "run": (*run_folder.OWN_FILES, *training_run.RESULTS),
        "model": final_model.MODEL_FILES,
        "cv": crossval_run.OWN_FILES,
        "sweep": sweep_run.OWN_FILES,
    }
    for name, files in own.items():
        assert foreign_file(tmp_path / name, files) is None
    for other in ("model/encoder/mine.txt", "cv/shares/r0_f0/mine.txt", "sweep/best/mine.txt"):
        (tmp_path / other).write_text("mine")
        top, _, rest = other.partition("/")
        assert foreign_file(tmp_path / top, own[top]) == rest
        clear(tmp_path / top, own[top])
        left = [p for p in (tmp_path / top).rglob("*") if p.is_file()]
        assert [p.name for p in left] == ["mine.txt"]


@pytest.mark.slow
def test_commands_killed_before_their_file_operations(tmp_path: Path) -> None:
    found = load_script("kill_operations").run_all(
        tmp_path, 3, ["train", "fit", "crossval", "sweep", "split"]
    )
    assert len(found) == 5
    for facts in found:
        assert facts["wrong"] == [] and facts["kills"] >= 3, facts
