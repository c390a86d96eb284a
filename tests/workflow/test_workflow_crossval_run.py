import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate, train_encoder
from m1pipe.artefacts import read_json, sealed
from m1pipe.atomic import write_json
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.evaluation import crossval as evaluation
from m1pipe.evaluation.compared_models import Model
from m1pipe.evaluation.plan import trained_on
from m1pipe.evaluation.predictions import remove_stale
from m1pipe.heads import networks
from m1pipe.heads.networks import PassFile
from m1pipe.io.writer import write_matrix
from m1pipe.reports.files import read_result
from m1pipe.workflow import crossval_run as runs
from m1pipe.workflow.crossval_inputs import CrossvalRun
from m1pipe.workflow.crossval_run import gather, run_crossval

pytestmark = pytest.mark.usefixtures("figures_undrawn")

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, kl_warmup=0.0)
)
HEAD = HeadConfig(hidden=(4,), epochs=3)
QUICK = CrossvalConfig(folds=3, models=("ridge", "raw", "pca"), head=HEAD)
LARGER = replace(QUICK, head=replace(HEAD, validation=0.0, epochs=4, batch_size=40))
LOG = Units("log2_tpm1")
# Heads of three folds in one pass and heads of one are multiplied in other shapes: to rounding.
ROUNDING = {"rtol": 1e-4, "atol": 1e-6}


def write(path: Path, X: np.ndarray, column: str) -> None:
    write_matrix(
        path,
        X.astype(np.float32),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(len(X))]),
        var=pd.DataFrame(index=[f"{column}{j}" for j in range(X.shape[1])]),
        units=LOG,
        force=True,
    )


@pytest.fixture
def run(tmp_path: Path) -> CrossvalRun:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(45, 6)) + 4
    write(tmp_path / "x.h5ad", X, "g")
    write(tmp_path / "y.h5ad", X[:, :3] + 0.1 * rng.normal(size=(45, 3)), "t")
    write(tmp_path / "u.h5ad", rng.normal(size=(80, 6)) + 4, "g")
    for seed in (0, 1):
        config = replace(TINY, training=replace(TINY.training, seed=seed))
        train_encoder(tmp_path / "u.h5ad", config).save(tmp_path / f"vae{seed}")
    return CrossvalRun(
        x=str(tmp_path / "x.h5ad"),
        y=str(tmp_path / "y.h5ad"),
        encoders={"vae": (str(tmp_path / "vae0"), str(tmp_path / "vae1"))},
    )


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (repeat, fold) that were run."""
    found: list[tuple[int, int]] = []
    open_share = evaluation.open_share

    def counted(problem: Any, inputs: Any, repeat: int, fold: int, **named: Any) -> Any:
        found.append((repeat, fold))
        return open_share(problem, inputs, repeat, fold, **named)

    monkeypatch.setattr(evaluation, "open_share", counted)
    return found


def break_after(monkeypatch: pytest.MonkeyPatch, n: int, error: BaseException) -> None:
    """The process ends while the share after the n-th is about to be written."""
    write_share, count = runs.write_share, iter(range(100))

    def breaking(*arguments: Any, **named: Any) -> None:
        if next(count) >= n:
            raise error
        write_share(*arguments, **named)

    monkeypatch.setattr(runs, "write_share", breaking)


def test_the_file_behind_an_encoder_is_known(run: CrossvalRun, tmp_path: Path) -> None:
    assert trained_on(str(tmp_path / "vae0")) is None  # saved by hand: no run recorded it
    inputs = {"data": {"path": "u.h5ad"}}
    (tmp_path / "vae1" / "provenance.json").write_text(json.dumps({"inputs": inputs}))
    assert trained_on(str(tmp_path / "vae1")) == "u.h5ad"
    facts = run_crossval(run, QUICK, tmp_path / "cv").info["encoders"]["vae"]["runs"]
    assert [fact["data"] for fact in facts] == [None, "u.h5ad"]


def test_a_folder_holds_what_the_library_returns(run: CrossvalRun, tmp_path: Path) -> None:
    result = run_crossval(run, QUICK, tmp_path / "cv")
    assert result is not None
    names = {path.name for path in (tmp_path / "cv").iterdir()}
    assert names >= {
        *("config.json", "provenance.json", "folds.csv", "losses.h5", "scores.csv", "shares"),
        *("comparisons.csv", "summary.json", "report.html", "seed_scores.csv"),
    }
    direct = cross_validate(run.x, run.y, encoders=run.encoders, config=QUICK)
    stored = read_result(tmp_path / "cv")
    for row in ("mean", "ridge", "raw", "pca", "vae"):
        np.testing.assert_array_equal(stored.losses[row], direct.losses[row])
        np.testing.assert_array_equal(result.losses[row], direct.losses[row])
    np.testing.assert_array_equal(stored.seed_losses["vae"], direct.seed_losses["vae"])
    config = json.loads((tmp_path / "cv" / "config.json").read_text())
    assert config["encoders"] == {"vae": list(run.encoders["vae"])}
    assert config["crossval"]["folds"] == 3
    inputs = json.loads((tmp_path / "cv" / "provenance.json").read_text())["inputs"]
    assert set(inputs) == {
        "x",
        "y",
        *(f"vae {i}{part}" for i in (1, 2) for part in ("", " model", " pca")),
    }


def test_a_killed_run_goes_on_and_ends_the_same(
    run: CrossvalRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fits: list[tuple[int, int]],
) -> None:
    whole = run_crossval(run, QUICK, tmp_path / "whole")
    fits.clear()
    with monkeypatch.context() as patch:
        break_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_crossval(run, QUICK, tmp_path / "cv")
    assert fits == [(0, 0), (0, 1), (0, 2)]
    assert not (tmp_path / "cv" / "summary.json").exists()
    with pytest.raises(InputError, match=r"1 are missing \(repeat 0 fold 2\)"):
        gather(tmp_path / "cv")
    fits.clear()
    again = run_crossval(run, QUICK, tmp_path / "cv")
    assert fits == [(0, 2)]
    assert whole is not None
    assert again is not None
    for row, loss in whole.losses.items():
        np.testing.assert_allclose(again.losses[row], loss, **ROUNDING)
    pd.testing.assert_frame_equal(again.scores, whole.scores, **ROUNDING)
    # differences of losses that are about equal have fewer digits than these
    pd.testing.assert_frame_equal(again.comparisons, whole.comparisons, rtol=1e-3, atol=1e-4)


def test_an_array_of_jobs_gives_the_same(run: CrossvalRun, tmp_path: Path) -> None:
    config = replace(QUICK, repeats=2)
    whole = run_crossval(run, config, tmp_path / "whole")
    for repeat, fold in ((1, 2), (0, 0), (0, 1), (1, 1), (1, 0), (0, 2)):
        assert run_crossval(run, config, tmp_path / "cv", only=(repeat, fold)) is None
    gathered = gather(tmp_path / "cv")
    assert whole is not None
    for row, loss in whole.losses.items():
        np.testing.assert_allclose(gathered.losses[row], loss, **ROUNDING)
    assert (tmp_path / "cv" / "report.html").exists()


def test_a_share_is_run_again_only_by_force(
    run: CrossvalRun, tmp_path: Path, fits: list[tuple[int, int]]
) -> None:
    for force in (False, False, True):
        run_crossval(run, QUICK, tmp_path / "cv", only=(0, 1), force=force)
    assert fits == [(0, 1), (0, 1)]
    with pytest.raises(InputError, match="expected folds 0 to 2 and repeats 0 to 0"):
        run_crossval(run, QUICK, tmp_path / "cv", only=(0, 3))


def test_a_finished_result_is_overwritten_only_by_force(
    run: CrossvalRun, tmp_path: Path, fits: list[tuple[int, int]]
) -> None:
    whole = run_crossval(run, QUICK, tmp_path / "cv")
    fits.clear()
    again = run_crossval(run, QUICK, tmp_path / "cv")
    assert fits == [], "the same command leaves it alone"
    assert whole is not None and again is not None
    pd.testing.assert_frame_equal(whole.scores, again.scores)
    with pytest.raises(InputError, match=r"holds a cross-validation of other config.*force"):
        run_crossval(run, replace(QUICK, seed=1), tmp_path / "cv")
    (tmp_path / "cv" / "notes.txt").write_text("mine")
    run_crossval(run, replace(QUICK, seed=1), tmp_path / "cv", force=True)
    assert len(fits) == 3
    assert (tmp_path / "cv" / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(run: CrossvalRun, tmp_path: Path) -> None:
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no cross-validation"):
        run_crossval(run, QUICK, tmp_path / "cv")
    assert [path.name for path in (tmp_path / "cv").iterdir()] == ["thesis.txt"]


def test_other_settings_or_data_do_not_mix(run: CrossvalRun, tmp_path: Path) -> None:
    run_crossval(run, QUICK, tmp_path / "cv", only=(0, 0))
    changed = replace(QUICK, head=replace(QUICK.head, lr=0.1))
    with pytest.raises(InputError, match="holds a cross-validation of other config"):
        run_crossval(run, changed, tmp_path / "cv")
    with pytest.raises(InputError, match="of other config and folds"):
        run_crossval(run, replace(QUICK, seed=5), tmp_path / "cv")
    y = np.random.default_rng(1).normal(size=(45, 3))
    write(Path(str(run.y)), y, "t")
    with pytest.raises(InputError, match="of other data"):
        run_crossval(run, QUICK, tmp_path / "cv")


def test_another_device_or_another_place_is_no_other_run(
    run: CrossvalRun, tmp_path: Path, fits: list[tuple[int, int]]
) -> None:
    run_crossval(run, QUICK, tmp_path / "cv", only=(0, 0))
    shutil.copy(run.x, tmp_path / "moved.h5ad")
    moved = replace(run, x=str(tmp_path / "moved.h5ad"))
    config = replace(QUICK, head=replace(QUICK.head, device="cpu"))
    run_crossval(moved, config, tmp_path / "cv")
    assert fits == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("mark", ["config", "data", "folds"])
def test_gather_refuses_a_share_of_another_run(run: CrossvalRun, tmp_path: Path, mark: str) -> None:
    run_crossval(run, QUICK, tmp_path / "cv")
    path = tmp_path / "cv" / "shares" / "r0_f1" / "share.json"
    facts = read_json(path, "a share")
    facts["fingerprint"][mark] = "of another"
    write_json(path, sealed(facts))
    with pytest.raises(InputError, match=f"r0_f1: expected a share of this.*its {mark} differ"):
        gather(tmp_path / "cv")


def test_gather_refuses_what_is_damaged(run: CrossvalRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the plan of a cross-validation"):
        gather(tmp_path)
    run_crossval(run, QUICK, tmp_path / "cv")
    losses = tmp_path / "cv" / "shares" / "r0_f2" / "losses.h5"
    losses.write_bytes(losses.read_bytes()[:100])
    with pytest.raises(InputError, match="r0_f2: expected a share of a cross-validation; losses"):
        gather(tmp_path / "cv")


def test_a_signal_keeps_the_finished_folds(
    run: CrossvalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_model = evaluation.predict_model

    def signalled(model: Model, *arguments: Any) -> Any:
        if model.name == "raw" and (tmp_path / "cv" / "shares" / "r0_f0").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return predict_model(model, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predict_model", signalled)
        with pytest.raises(StoppedBySignalError, match="SIGTERM in repeat 0 fold 1"):
            run_crossval(run, QUICK, tmp_path / "cv")
    shares = {path.name for path in (tmp_path / "cv" / "shares").iterdir()}
    assert shares == {"plan.json", "r0_f0"}
    stale, other = (
        tmp_path / "cv" / "shares" / f"pass_{n}_inner0.pt" for n in ("r0_f0-2", "r3_f0-2")
    )
    for path in (stale, other):  # of a pass whose fold 0 is written, and of another repeat
        path.write_bytes(b"")
    assert run_crossval(run, QUICK, tmp_path / "cv") is not None
    assert not stale.exists()
    assert other.exists()


def test_a_signal_while_heads_are_trained_keeps_the_pass(
    run: CrossvalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, epochs = networks._without, []

    def signalled(*arguments: Any) -> Any:
        epochs.append(len(epochs))
        if len(epochs) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return go_on(*arguments)

    whole: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(networks, "_without", lambda *arguments: whole.append(1) or go_on(*arguments))
        unbroken = run_crossval(run, LARGER, tmp_path / "again")
    monkeypatch.setattr(networks, "_without", signalled)
    with pytest.raises(StoppedBySignalError, match="while heads were trained"):
        run_crossval(run, LARGER, tmp_path / "cv")
    shares = tmp_path / "cv" / "shares"
    (kept,) = {path.name for path in shares.iterdir()} - {"plan.json"}
    assert kept.startswith("pass_r0_f0-2_")
    result = run_crossval(run, LARGER, tmp_path / "cv")
    assert len(epochs) == len(whole)
    assert not list(shares.glob("*.pt"))
    assert result is not None and unbroken is not None
    for row in unbroken.models:
        np.testing.assert_array_equal(result.losses[row], unbroken.losses[row])


def test_bad_input_leaves_no_folder(run: CrossvalRun, tmp_path: Path) -> None:
    for bad, said in (
        (replace(run, y=None, label="status"), "expected a column"),
        (replace(run, y=None), "expected one of y, label"),
        (replace(run, encoders={"vae": (str(tmp_path / "nowhere"),)}), "expected a trained model"),
        (replace(run, encoders={"raw": run.encoders["vae"]}), "no other model's"),
    ):
        with pytest.raises(InputError, match=said):
            run_crossval(bad, QUICK, tmp_path / "cv")
    with pytest.raises(InputError, match="found 45 samples for 46 folds"):
        run_crossval(run, replace(QUICK, folds=46), tmp_path / "cv")
    assert not (tmp_path / "cv").exists()


def test_encoders_of_the_fold_are_part_of_the_settings(run: CrossvalRun, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text('{"n_latent": 2, "hidden": [4], "epochs": 2}')
    item = f"fold:{tmp_path / 'tiny.json'}"
    in_fold = replace(run, encoders={"vae": (item,)})
    config = replace(QUICK, models=("mean",))
    run_crossval(in_fold, config, tmp_path / "cv", only=(0, 0))
    (tmp_path / "tiny.json").write_text('{"n_latent": 2, "hidden": [4], "epochs": 3}')
    with pytest.raises(InputError, match="of other config"):
        run_crossval(in_fold, config, tmp_path / "cv")


def test_parts_of_the_training_rows_are_resumed_and_run_as_an_array(
    run: CrossvalRun, fits: list[tuple[int, int]], tmp_path: Path
) -> None:
    config = replace(QUICK, models=("ridge",), train_sizes=(10, 20))
    whole = run_crossval(run, config, tmp_path / "whole")
    assert whole is not None
    assert len(fits) == 9
    fits.clear()
    shutil.rmtree(tmp_path / "whole" / "shares" / "r0_f1_n20")
    for name in ("summary.json", "report.html"):
        (tmp_path / "whole" / name).unlink()
    again = run_crossval(run, config, tmp_path / "whole")
    assert fits == [(0, 1)]
    fits.clear()
    for fold in range(3):
        assert run_crossval(run, config, tmp_path / "array", only=(0, fold)) is None
    assert fits == [(0, k) for k in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    with pytest.raises(InputError, match="of other config"):
        run_crossval(run, replace(config, train_sizes=(10,)), tmp_path / "array", only=(0, 0))
    gathered = gather(tmp_path / "array")
    for other in (again, gathered, read_result(tmp_path / "whole")):
        assert other is not None
        pd.testing.assert_frame_equal(other.curve, whole.curve, **ROUNDING)
        pd.testing.assert_frame_equal(other.targets, whole.targets, **ROUNDING)
    assert sorted(set(whole.curve["n_train"])) == [10, 20, 30]


def test_draws_are_resumed_and_run_as_an_array(
    run: CrossvalRun, fits: list[tuple[int, int]], tmp_path: Path
) -> None:
    run = replace(run, encoders={})
    config = replace(QUICK, models=("ridge",), train_sizes=(10, 20), draws=3)
    whole = run_crossval(run, config, tmp_path / "whole")
    assert whole is not None and len(fits) == 3 * (1 + 2 * 3)
    shares = tmp_path / "whole" / "shares"
    first_fold = {path.name for path in shares.glob("r0_f1*")}
    draws = {f"r0_f1_n{n}{d}" for n in (10, 20) for d in ("", "_d1", "_d2")}
    assert first_fold == {"r0_f1", *draws}, "the first draw is named as where there is one"
    fits.clear()
    shutil.rmtree(shares / "r0_f1_n20_d2")
    for name in ("summary.json", "report.html"):
        (tmp_path / "whole" / name).unlink()
    again = run_crossval(run, config, tmp_path / "whole")
    assert fits == [(0, 1)]
    for fold in range(3):
        assert run_crossval(run, config, tmp_path / "array", only=(0, fold)) is None
    for other in (again, gather(tmp_path / "array"), read_result(tmp_path / "whole")):
        assert other is not None
        pd.testing.assert_frame_equal(other.curve, whole.curve)
        pd.testing.assert_frame_equal(other.curve_tests, whole.curve_tests)
    assert "3 draws" in (tmp_path / "whole" / "report.html").read_text()


def test_a_folder_without_draws_is_read_as_one_of_the_first(
    run: CrossvalRun, tmp_path: Path
) -> None:
    config = replace(QUICK, models=("ridge",), train_sizes=(10,))
    whole = run_crossval(replace(run, encoders={}), config, tmp_path / "cv")
    assert whole is not None
    plan = tmp_path / "cv" / "shares" / "plan.json"
    stored = read_json(plan, "a plan")
    assert stored.pop("draws") == 1
    write_json(plan, stored)
    pd.testing.assert_frame_equal(gather(tmp_path / "cv").curve, whole.curve)
    table = tmp_path / "cv" / "label_efficiency.csv"
    pd.read_csv(table).drop(columns="draw").to_csv(table, index=False)
    again = read_result(tmp_path / "cv").curve
    assert list(again) == list(whole.curve)
    assert set(again["draw"]) == {0}


@pytest.mark.parametrize(
    ("written", "goes"),
    [((0, 1, 10, 2), True), ((0, 1, 10, 0), True), ((0, 0, 10, 1), False), ((0, 1, 20, 2), False)],
)
def test_a_stale_pass_over_draws_is_removed(
    run: CrossvalRun, tmp_path: Path, written: tuple[int, int, int, int], goes: bool
) -> None:
    """Of fold 0 from draw 2 to fold 1, draw 2; written: a share that may be one of these."""
    config = replace(QUICK, models=("ridge",), train_sizes=(10, 20), draws=3)
    problem = replace(run, encoders={}).problem(config)
    path = tmp_path / "pass_r0_f0-1_n10_d2-2_inner0.pt"
    path.write_bytes(b"")
    remove_stale(PassFile(tmp_path / "pass", ""), problem, [written], [])
    assert path.exists() != goes


def test_the_view_by_label_comes_back_from_the_shares(run: CrossvalRun, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path / "go.h5ad", (rng.random((45, 7)) < 0.4).astype(float), "GO:")
    marks = replace(run, y=None, multilabel=str(tmp_path / "go.h5ad"))
    config = replace(QUICK, models=("logistic", "raw"), repeats=2)
    whole = run_crossval(marks, config, tmp_path / "cv")
    assert whole is not None
    for folder in ("report.html", "labels.csv", "calibration.csv", "score_intervals.csv"):
        assert (tmp_path / "cv" / folder).is_file()
    for other in (gather(tmp_path / "cv"), read_result(tmp_path / "cv")):
        pd.testing.assert_frame_equal(other.labels, whole.labels, check_dtype=False)
        pd.testing.assert_frame_equal(other.calibration, whole.calibration, check_dtype=False)
    memory = cross_validate(
        marks.x, multilabel=marks.multilabel, encoders=marks.encoders, config=config
    )
    pd.testing.assert_frame_equal(memory.labels, whole.labels)
    page = (tmp_path / "cv" / "report.html").read_text()
    assert "Label by label" in page and "GO:6" in page and "P@k" in page
    unlearned = whole.labels.query("verdict == 'not learned'")["label"]
    assert len(unlearned) and all(name in page for name in unlearned)
