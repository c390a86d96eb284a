"""Synthetic samples among a fold's training rows: from these rows alone, and never held out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.errors import InputError
from m1pipe.evaluation.augment import (
    GeneratorRequest,
    draw_again,
    refuse_unfit,
    synthesize,
    wanted_counts,
)
from m1pipe.evaluation.compare import declared_family
from m1pipe.evaluation.compared_models import VARIANTS
from m1pipe.evaluation.cost import cost_text
from m1pipe.evaluation.crossval import open_share
from m1pipe.evaluation.inputs import whole_inputs
from m1pipe.evaluation.predictions import OpenShare, fit_opened
from m1pipe.evaluation.problem import Problem, make_fold, make_problem
from m1pipe.heads import fit as fitting
from m1pipe.heads.inner_folds import stepped_rows
from m1pipe.reports.crossval_report import report_html

N, P = 132, 8
SIZES = (78, 32, 22)
TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, kl_warmup=0.0)
)
CONFIG = CrossvalConfig(
    folds=3,
    models=("prior", "raw"),
    augment="balance",
    head=HeadConfig(hidden=(8,), epochs=4),
)


def noisy_copies(request: GeneratorRequest) -> tuple[np.ndarray, np.ndarray]:
    """A generator that depends on every value it is given."""
    rng = np.random.default_rng(request.seed)
    codes = np.repeat(np.arange(request.wanted.size), request.wanted)
    rows = [rng.choice(np.flatnonzero(request.codes == k)) for k in codes]
    noise = rng.normal(size=(codes.size, request.X.shape[1])) * request.X.std(axis=0)
    return (request.X[rows] + noise).astype(np.float32), codes


def frame(rng: np.random.Generator) -> pd.DataFrame:
    codes = np.repeat(np.arange(3), SIZES)
    X = rng.normal(size=(N, P)) + 4 + np.eye(3, P)[codes]
    return pd.DataFrame(X, index=[f"s{i}" for i in range(N)], columns=[f"g{j}" for j in range(P)])


def with_labels(X: pd.DataFrame):  # type: ignore[no-untyped-def]
    import anndata

    labels = np.repeat(["a", "b", "c"], SIZES)
    obs = pd.DataFrame({"kind": labels}, index=X.index)
    var = pd.DataFrame(index=X.columns)
    return anndata.AnnData(X.to_numpy(np.float32), obs=obs, var=var)


def problem_of(X: pd.DataFrame, config: CrossvalConfig = CONFIG) -> Problem:
    return make_problem(
        with_labels(X),
        label="kind",
        encoders={"vae": TINY},
        config=config,
        generator=noisy_copies,
    )


def opened(problem: Problem) -> OpenShare:
    return open_share(problem, whole_inputs(problem), 0, 1)


@pytest.fixture(scope="module")
def genes() -> pd.DataFrame:
    return frame(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("augment", "expected"),
    [("balance", [0, 6, 7, 0]), (2.0, [8, 2, 1, 0]), ("1.5", [4, 1, 0, 0])],
)
def test_how_many_are_wanted(augment: str | float, expected: list[int]) -> None:
    codes = np.repeat([0, 1, 2], [8, 2, 1])
    assert wanted_counts(codes, 4, augment).tolist() == expected


def test_rows_drawn_again_are_of_their_class_and_may_repeat() -> None:
    rows, codes = np.array([5, 7, 9, 11]), np.array([0, 1, 1, 2])
    drawn = draw_again(rows, codes, np.array([3, 50, 0]), seed=1)
    assert drawn[:3].tolist() == [5, 5, 5]
    assert set(drawn[3:]) == {7, 9}
    assert len(drawn) == 53
    assert draw_again(rows, codes, np.zeros(3, dtype=int), seed=1).size == 0


def test_test_rows_change_no_added_sample(genes: pd.DataFrame) -> None:
    problem = problem_of(genes)
    before, split = opened(problem), make_fold(problem, 0, 1)
    poisoned = genes.copy()
    poisoned.iloc[split.test] = 1e6 * np.random.default_rng(1).normal(size=(split.test.size, P))
    after = opened(problem_of(poisoned))
    assert set(before.inputs.added) == {
        "raw_augmented", "raw_bootstrap", "vae_augmented", "vae_bootstrap"
    }  # fmt: skip
    for row, added in before.inputs.added.items():
        np.testing.assert_array_equal(added[0].X, after.inputs.added[row][0].X)
        np.testing.assert_array_equal(added[0].codes, after.inputs.added[row][0].codes)
    other = genes.copy()
    other.iloc[split.train] += 1.0  # the check can fail: training rows do matter
    moved = opened(problem_of(other)).inputs.added["raw_augmented"][0].X
    assert not np.array_equal(before.inputs.added["raw_augmented"][0].X, moved)


def test_rows_that_choose_settings_change_no_added_sample(genes: pd.DataFrame) -> None:
    config = replace(CONFIG, models=("raw",))
    data = with_labels(genes)
    problem = make_problem(data, label="kind", config=config, generator=noisy_copies)
    split = make_fold(problem, 0, 1)
    share = config.head.validation
    kept = stepped_rows(problem.targets, split.train, None, split.seed, share)
    held_out = np.setdiff1d(split.train, kept)
    assert held_out.size == pytest.approx(share * split.train.size, abs=1)
    poisoned = data.copy()
    poisoned.X[held_out] = 1e6
    other = make_problem(poisoned, label="kind", config=config, generator=noisy_copies)
    before, after = opened(problem).inputs.added, opened(other).inputs.added
    for row in ("raw_augmented", "raw_bootstrap"):
        np.testing.assert_array_equal(before[row][0].X, after[row][0].X)


@pytest.mark.parametrize("train_size", [None, 60])
def test_added_rows_are_trained_on_and_no_copy_is_held_out(
    genes: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, train_size: int | None
) -> None:
    sizes = () if train_size is None else (train_size,)
    config = replace(CONFIG, models=("raw",), train_sizes=sizes)
    problem = make_problem(with_labels(genes), label="kind", config=config, generator=noisy_copies)
    problem = replace(problem, train_size=train_size)
    share, seen = opened(problem), []
    network = fitting._network

    def watched(part, which, number, fold, epochs):  # type: ignore[no-untyped-def]
        made = network(part, which, number, fold, epochs)
        seen.append((part, made, fold))
        return made

    monkeypatch.setattr(fitting, "_network", watched)
    fit_opened(problem, [share])
    n_train, held_out = share.split.train.size, {}
    for part, made, fold in seen:
        if part.job.added is None:
            continue
        n_added = part.job.added.codes.size
        assert set(range(n_train, n_train + n_added)) <= set(made.rows)
        assert part.start.features.scaler.location.size == P
        if fold is None:
            continue
        held_out[id(part)] = made.held_out
        assert made.held_out.size and made.held_out.max() < n_train
        own = {tuple(x) for x in part.job.X[part.job.rows[made.held_out]]}
        assert not own & {tuple(x) for x in part.job.added.X}
        counts = np.bincount(part.targets.values[made.rows])
        assert counts.tolist() == [counts[0]] * 3
    assert len(held_out) == 2  # of raw_bootstrap and raw_augmented, judged by one inner fold each
    kept = {tuple(x) for x in share.inputs.arrays["genes"][0][share.split.train]}
    assert {tuple(x) for x in share.inputs.added["raw_bootstrap"][0].X} <= kept


def test_the_rows_their_family_and_the_page(genes: pd.DataFrame) -> None:
    result = cross_validate(
        with_labels(genes),
        label="kind",
        encoders={"vae": [TINY, TINY]},
        config=CONFIG,
        generator=noisy_copies,
    )
    variants = [f"{row}_{variant}" for row in ("raw", "vae") for variant in VARIANTS]
    assert result.models == ["prior", "raw", *variants[:3], "vae", *variants[3:]]
    assert len(result.seed_losses["vae_augmented"]) == 2
    table = result.comparisons
    claimed = table[(table["test"] == "nadeau_bengio") & table["p_holm"].notna()]
    pairs = set(zip(claimed["model_a"], claimed["model_b"], strict=True))
    assert {(a, b) for a, b in pairs if a == "vae_augmented"} == {
        ("vae_augmented", b) for b in ("vae", "vae_bootstrap", "vae_weighted")
    }
    assert ("raw_augmented", "raw_weighted") in pairs
    assert ("vae", "raw") in pairs
    assert [line["classes"]["a"] for line in result.info["added"]] == [0, 0, 0]
    assert all(line["classes"]["c"] > line["classes"]["b"] for line in result.info["added"])
    page = report_html(result, provenance={}, config={})
    assert "synthetic samples, up to the largest class" in page
    assert "added to a training fold" in page
    assert "Models named _augmented were trained on synthetic samples as well" in page


def test_a_weighted_row_is_that_of_class_weights(genes: pd.DataFrame) -> None:
    data, quick = with_labels(genes), replace(CONFIG, folds=2)
    found = cross_validate(data, label="kind", config=quick, generator=noisy_copies)
    head = replace(CONFIG.head, class_weight="balanced")
    plain = replace(quick, augment=None, head=head)
    weighted = cross_validate(data, label="kind", config=plain)
    np.testing.assert_allclose(found.losses["raw_weighted"], weighted.losses["raw"], rtol=1e-3)
    assert not np.allclose(found.losses["raw_weighted"], found.losses["raw"], rtol=1e-2)


def test_what_cannot_be_augmented_is_refused_in_one_line(genes: pd.DataFrame) -> None:
    data = with_labels(genes)
    told = replace(TINY, model=replace(TINY.model, condition="kind2"))
    levels = genes.iloc[:, :2] * 2
    for arguments, words in [
        ({"y": levels}, "expected classes"),
        ({"label": "kind", "encoders": {"vae": told}}, "not conditional; found vae, told kind2"),
        ({"label": "kind", "config": replace(CONFIG, models=("prior",))}, "expected the model raw"),
        ({"label": "kind", "config": replace(CONFIG, train_sizes=(30,))}, "at least 60 .* 30"),
        ({"label": "kind", "generator": None}, "expected a generator"),
        ({"label": "kind", "encoders": {"a_augmented": TINY}}, "does not end in _gene, .*_linear"),
    ]:
        named = {"config": CONFIG, "generator": noisy_copies, **arguments}
        if "y" in arguments:
            named["config"] = replace(CONFIG, models=("mean", "raw"))
        with pytest.raises(InputError, match=words) as caught:
            cross_validate(data, **named)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="found several labels"):
        refuse_unfit("multilabel", 100)


@pytest.mark.parametrize("augment", ["balanced", 1.0, "nan", -2, "1e9"])
def test_other_settings_are_refused(augment: str | float) -> None:
    with pytest.raises(InputError, match="expected balance, or a number"):
        CrossvalConfig(augment=augment)
    with pytest.raises(InputError, match="no class_weight beside it"):
        CrossvalConfig(augment=2.0, head=HeadConfig(class_weight="balanced"))


def test_a_generator_that_does_not_do_as_told_is_refused(genes: pd.DataFrame) -> None:
    problem = problem_of(genes)
    seen: list[GeneratorRequest] = []

    def spy(request: GeneratorRequest) -> tuple[np.ndarray, np.ndarray]:
        seen.append(request)
        return noisy_copies(request)

    opened(replace(problem, generator=spy))
    (request,) = seen
    X, codes = noisy_copies(request)
    with pytest.raises(InputError, match=r"expected .* samples of the classes"):
        synthesize(lambda _: (X[1:], codes[1:]), request)
    with pytest.raises(InputError, match="finite"):
        synthesize(lambda _: (X * np.nan, codes), request)
    nothing = replace(request, wanted=np.zeros(3, dtype=np.int64))
    assert synthesize(lambda _: 1 / 0, nothing)[0].shape == (0, P)


def test_family_and_cost(genes: pd.DataFrame) -> None:
    rows = ["prior", "raw", "raw_weighted", "raw_augmented"]
    assert declared_family([], rows, None) == [
        ("raw_augmented", "raw"),
        ("raw_augmented", "raw_weighted"),
    ]
    text = cost_text(problem_of(genes))
    assert "augment: trains 3 generators inside the folds" in text
    assert "raw_augmented" in text
