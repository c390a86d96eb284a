"""study.toml: one clear line for what is wrong in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.errors import InputError
from m1pipe.workflow.study import read_study


@pytest.fixture
def study(make_study: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_study(tmp_path)


def test_a_study_is_read_with_defaults_and_paths_beside_it(study: Path) -> None:
    found = read_study(study)
    folder = study.parent
    assert found.data["x"].source == folder / "x.tsv"
    assert found.path("x") == folder / "runs" / "data" / "x.h5ad"
    assert found.path("u.training") == folder / "runs" / "data" / "u" / "training.h5ad"
    runs = found.encoders["vae"].runs
    assert [run.training.seed for run in runs.values()] == [1, 2]
    assert list(runs) == ["vae1", "vae2"]
    assert runs["vae1"].training.lr == EncoderConfig().training.lr
    assert found.crossval is not None
    assert found.crossval.encoders == ("vae",)
    assert found.crossval.config.head.hidden == (4,)
    assert found.crossval.config.seed == CrossvalConfig().seed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('out = "runs"', "out = runs", r"study\.toml: expected a readable .*TOML.*line 2"),
        ('out = "runs"', "out = 3", "out: expected text; found 3"),
        ("[convert]", "[konvert]", "unknown table 'konvert'; known ones are out, convert"),
        ("log2p1 = true", "log2 = true", r"data\.u: unknown setting 'log2'"),
        ('units = "counts"', 'units = "reads"', r"data\.u: .*reads"),
        ('source = "x.tsv"', 'source = "no.tsv"', r"data\.x: expected a file; found no .*no\.tsv"),
        ('source = "x.tsv"', "", r"data\.x: expected `file`.* or `source`"),
        ('source = "x.tsv"', 'file = "x.tsv"\nunits = "cpm"', r"data\.x: units: only a `source`"),
        ("split.holdout = 0.25", "split.holdout = 2", r"data\.u\.split: holdout: expected"),
        (
            "split.holdout = 0.25",
            "",
            r"expected u, or with \[data\.u\.split\]",
        ),
        ('data = "u.training"', 'data = "v"', r"expected a name of \[data\] \(u, x, y\).*'v'"),
        ('data = "u.training"', "", r"encoders\.vae: expected `data`, or `in_fold = true`"),
        ("seeds = [1, 2]", "seeds = 3", "seeds: expected a list of different numbers; found 3"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"different numbers; found \[1, 1\]"),
        ("[crossval]", "[encoders.vae1]\nin_fold = true\n[crossval]", "be 'vae1', which is taken"),
        ("n_latent = 3", "n_latent = 0", r"encoders\.vae: .*latent: expected a number in \[1"),
        ("n_latent = 3", "latent = 3", r"encoders\.vae: unknown setting 'latent'"),
        ("[encoders.vae]", '["encoders"."v/e"]', "expected a name of letters.*'v/e'"),
        ('y = "y"', "", "expected one of y, label and multilabel"),
        ('y = "y"', 'y = "y"\nencoders = ["vea"]', r"names of \[encoders\] \(vae\); found 'vea'"),
        ("folds = 2", "folds = 1", "crossval: .*folds: expected a number"),
        ("[jobs]", '[quality]\nreal = "x"\n[jobs]', "quality: expected `holdout`, a data set"),
        ("[jobs]", '[generation]\nrun = "vae"\nn = 5\n[jobs]', r"one seed \(vae1, vae2\).*'vae'"),
        ("[jobs]", '[generation]\nrun = "vae1"\n[jobs]', "generation: n: expected a number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(study: Path, old: str, new: str, message: str) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_study(study)
    assert "\n" not in str(caught.value)
    assert "study.toml" in str(caught.value)
