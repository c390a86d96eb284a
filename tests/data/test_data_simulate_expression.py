from pathlib import Path

import anndata
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from m1pipe.cli.main import run
from m1pipe.data.simulation.expression import ExpressionConfig, draw_expression, plant_expression
from m1pipe.errors import InputError


def test_two_files_of_one_law_that_the_seed_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        arguments = ["--layout", "clusters", "--n-training", "300", "--n-genes", "60"]
        assert run(["simulate", "expression", "--out", str(tmp_path / name), *arguments]) == 0
    assert "300 training and 1,000 held-out samples x 60 genes" in capsys.readouterr().out
    training, held_out = (
        anndata.read_h5ad(tmp_path / "a" / f"{part}.h5ad") for part in ("training", "held_out")
    )
    again = anndata.read_h5ad(tmp_path / "b" / "training.h5ad")
    np.testing.assert_array_equal(training.X, again.X)
    assert training.uns["units"] == "log2_tpm1"
    assert not set(training.obs_names) & set(held_out.obs_names)
    np.testing.assert_allclose(training.X.mean(0), held_out.X.mean(0), atol=0.6)
    model = LogisticRegression(max_iter=500).fit(training.X, training.obs["class"])
    assert model.score(held_out.X, held_out.obs["class"]) > 0.85
    assert run(["simulate", "expression", "--out", str(tmp_path / "a")]) == 1
    (tmp_path / "a" / "thesis.tex").write_text("text")
    assert run(["simulate", "expression", "--out", str(tmp_path / "a"), "--force"]) == 1
    assert "holds thesis.tex, which is no part of a simulation" in capsys.readouterr().err


def test_one_cloud_is_one_cloud_with_zeros_at_the_limit() -> None:
    law = plant_expression(ExpressionConfig(n_genes=200))
    X, factors, classes = draw_expression(law, 4000, np.random.default_rng(0))
    assert factors.mean() == pytest.approx(0, abs=0.05)
    assert set(classes) == {"class_1", "class_2", "class_3"}
    assert 0.005 < (X == 0).mean() < 0.3
    assert X[X > 0].min() >= np.log2(1.5) - 1e-6
    with pytest.raises(
        InputError, match="expected one of unimodal, clusters, groups; found 'round'"
    ):
        ExpressionConfig(layout="round")  # type: ignore[arg-type]


def test_groups_are_equal_and_each_has_its_hundred_raised_genes() -> None:
    law = plant_expression(ExpressionConfig(layout="groups", n_genes=1000, seed=2))
    assert (law["shifts"] > 0).sum(axis=1).tolist() == [100, 100, 100]
    assert (law["shifts"] > 0).sum(axis=0).max() == 1
    X, _, classes = draw_expression(law, 300, np.random.default_rng(0))
    assert np.unique(classes, return_counts=True)[1].tolist() == [100, 100, 100]
    for k in range(3):
        mine = classes == f"class_{k + 1}"
        raised = X[mine].mean(axis=0) - X[~mine].mean(axis=0)
        found = set(np.argsort(-raised)[:100])
        assert len(found & set(np.flatnonzero(law["shifts"][k]))) > 90
