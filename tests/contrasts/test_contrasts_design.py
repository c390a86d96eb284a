"""Which samples are compared, and what is said of those that cannot be."""

import re

import numpy as np
import pandas as pd
import pytest

from m1pipe.contrasts.config import ContrastsConfig, EnrichConfig
from m1pipe.contrasts.design import CONTROL, design_matrix, plan_studies
from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix


def _matrix(n: int) -> Matrix:
    return open_matrix(pd.DataFrame(np.ones((n, 3)), index=[f"s{i}" for i in range(n)]))


def _design(rows: str, columns: str = "study condition") -> pd.DataFrame:
    cells = [row.split() for row in rows.strip().split("\n")]
    return pd.DataFrame(cells, columns=columns.split(), index=[f"s{i}" for i in range(len(cells))])


def test_every_condition_of_a_study_is_compared_with_its_controls() -> None:
    design = _design("B drug\nA control\nA case\nB wt\nB wt\nA case\nA control\nB drug\nB ko\nB ko")
    config = ContrastsConfig(control="control, wt")
    studies, skipped = plan_studies(_matrix(10), design, config)
    assert [s.name for s in studies] == ["A", "B"] and not skipped
    first, second = studies
    assert [r.tolist() for r in first.rows] == [[1], [2], [5], [6]]
    assert first.condition.tolist() == [CONTROL, "case", "case", CONTROL]
    assert second.cases == ["drug", "ko"]
    expected = [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]]
    assert design_matrix(second).tolist() == expected


def test_runs_of_an_experiment_are_one_sample() -> None:
    rows = "A control e1\nA control e2\nA case e3\nA control e1\nA case e4\nA case e3"
    design = _design(rows, "study condition srx")
    config = ContrastsConfig(experiment="srx")
    (study,), _ = plan_studies(_matrix(6), design, config)
    assert [r.tolist() for r in study.rows] == [[0, 3], [1], [2, 5], [4]]
    design.loc["s5", "condition"] = "control"
    with pytest.raises(InputError, match="one condition an experiment; found several in 'e3'"):
        plan_studies(_matrix(6), design, config)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("A case\nA case\nA case", "A: one condition only \\(case\\)"),
        ("A control", "A: one condition only \\(control\\)"),
        ("A control\nA case\nA case", "A: 1 control samples"),
        ("A control\nA control\nA case", "A:case: 1 sample"),
    ],
)
def test_what_cannot_be_compared_is_skipped_with_its_reason(rows: str, reason: str) -> None:
    n = rows.count("\n") + 1
    design = pd.concat([_design(rows), _design("B control\nB control\nB case\nB case")])
    design.index = [f"s{i}" for i in range(n + 4)]
    studies, skipped = plan_studies(_matrix(n + 4), design, ContrastsConfig())
    assert [s.name for s in studies] == ["B"]
    (one,) = skipped
    assert re.fullmatch(reason, ": ".join(one))


def test_one_pair_alone_leaves_nothing_for_noise() -> None:
    config = ContrastsConfig(min_samples=1)
    studies, skipped = plan_studies(_matrix(2), _design("A control\nA case"), config)
    assert not studies and skipped[0][1] == "2 samples leave nothing for noise"


def test_covariates_are_coded_and_confounded_ones_named() -> None:
    rows = "A control x\nA control y\nA case x\nA case y\nA case z\nA control z"
    design = _design(rows, "study condition batch").assign(age=[1.0, 2, 3, 4, 5, 9])
    config = ContrastsConfig(covariates=("batch", "age"))
    (study,), _ = plan_studies(_matrix(6), design, config)
    expected = pd.get_dummies(design["batch"]).to_numpy(float)[:, 1:]
    assert np.array_equal(study.covariates[:, :2], expected)
    assert study.covariates[:, 2].tolist() == design["age"].tolist()
    design["batch"] = ["x", "x", "y", "y", "y", "x"]
    config = ContrastsConfig(covariates=("batch",))
    studies, skipped = plan_studies(_matrix(6), design, config)
    assert not studies and "cannot be told from the conditions" in skipped[0][1]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"study": "no"}, "expected a column 'no'; found study, condition"),
        (
            {"control": "wildtype"},
            "expected 'wildtype' among the values of 'condition'; found case",
        ),
        ({"covariates": ("age",)}, "expected a column 'age'"),
    ],
)
def test_a_wrong_design_is_said(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        plan_studies(_matrix(2), _design("A case\nA control"), ContrastsConfig(**settings))


def test_samples_that_do_not_match_are_named() -> None:
    design = _design("A case\nA control").set_axis(["x", "y"])
    with pytest.raises(InputError, match=r"ids of the counts' samples \(s0, s1, ...\); found x, y"):
        plan_studies(_matrix(2), design, ContrastsConfig())


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (ContrastsConfig, {"method": "t"}, "method: expected one of limma, deseq2; found 't'"),
        (ContrastsConfig, {"min_samples": 0}, "min_samples: expected at least 1"),
        (EnrichConfig, {"alpha": 0}, "alpha: expected above 0"),
        (EnrichConfig, {"min_size": 9, "max_size": 8}, "max_size: expected at least min_size"),
        (EnrichConfig, {"min_prevalence": 1.5}, "prevalence: expected 0 <="),
    ],
)
def test_settings_are_checked(kind: type, settings: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        kind(**settings)
