"""Configurations: layers, files, checks."""

import json
from pathlib import Path

import pytest

from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.config.presets import PRESETS, preset_options
from m1pipe.errors import InputError
from m1pipe.settings import build, parse_bytes, read_config_file, to_dict
from m1pipe.synthesis.config import GenerateConfig


def test_later_layers_win_and_none_does_not_overwrite() -> None:
    config = build(
        EncoderConfig,
        preset_options("notebook"),
        {"model": {"n_latent": 16}, "training": {"lr": 0.01}},
        {"lr": 0.02, "n_latent": None},
    )
    assert config.model.hidden == (256, 128, 64)
    assert config.model.n_latent == 16
    assert config.training.lr == 0.02


@pytest.mark.parametrize("kind", [EncoderConfig, HeadConfig, CrossvalConfig])
def test_json_round_trip(kind: type) -> None:
    config = build(kind, {})
    assert build(kind, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_build_and_differ_from_the_defaults(name: str) -> None:
    assert build(EncoderConfig, preset_options(name)) != EncoderConfig()


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_have_nothing_that_their_originals_had_not(name: str) -> None:
    training = build(EncoderConfig, preset_options(name)).training
    assert (training.ema, training.weight_decay, training.kl_warmup) == (0.0, 0.0, 0.0)
    published = "plateau" if name in ("notebook", "dee2") else "constant"
    assert training.schedule == published
    assert training.clip == (1.0 if name == "notebook" else 0.0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"betta": 1}, "unknown setting 'betta'; .*: did you mean beta"),
        ({"beta": -1.0}, "beta: expected a number in"),
        ({"likelihood": "poisson"}, "likelihood: expected one of gaussian"),
        ({"batch_norm": 1}, "batch_norm: expected"),
        ({"beta": "high"}, "wrong kind|expected"),
        ({"hidden": [0]}, "hidden: expected layer widths"),
        ({"model": 3}, "model: expected a table"),
        ({"memory": "lots"}, "memory: expected a size"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(layer: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(EncoderConfig, layer, where="run.toml")
    assert "\n" not in str(caught.value)
    assert "run.toml" in str(caught.value)


def test_unknown_preset() -> None:
    with pytest.raises(InputError, match="preset: expected one of m1, notebook"):
        preset_options("m2")


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text("beta = 0\n[training]\nepochs = 3\n")
    assert read_config_file(toml) == {"beta": 0, "training": {"epochs": 3}}
    assert build(EncoderConfig, read_config_file(toml)).model.beta == 0.0
    broken = tmp_path / "c.json"
    broken.write_text("{")
    with pytest.raises(InputError, match=r"c\.json: expected a readable JSON or TOML"):
        read_config_file(broken)
    for nested, text in (("c.toml", "x = " + "[" * 20_000), ("c.json", "[" * 200_000)):
        (tmp_path / nested).write_text(text)
        with pytest.raises(InputError, match="readable JSON or TOML file; maximum recursion"):
            read_config_file(tmp_path / nested)
    with broken.open("wb") as sparse:
        sparse.truncate(20_000_000)
    with pytest.raises(InputError, match=r"c\.json: .*found 20,000,000 bytes, above 10,000,000"):
        read_config_file(broken)
    with pytest.raises(InputError, match="missing"):
        read_config_file(tmp_path / "missing.json")
    broken.write_text("[1]")
    with pytest.raises(InputError, match="expected a table of settings; found list"):
        read_config_file(broken)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * 2**30), ("512M", 512 * 2**20), ("1.5GiB", 3 * 2**29), ("1000", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1G", "G", "4X", "nan", "inf"])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a size such as 4G"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("rows", {}, r"rows: expected str \| None; found \{\}"),
        ("rows", 3, r"rows: expected str \| None; found 3"),
        ("epochs", "many", r"epochs: expected int \| None; found 'many'"),
        ("hidden", ["a"], "hidden: expected .*a list of int"),
        ("lr", "fast", "lr: expected .*float.*; found 'fast'"),
        ("n_latent", 2.5, "n_latent: expected int; found 2.5"),
        ("n_latent", [], r"n_latent: expected int; found \(\)"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        build(EncoderConfig, {name: value}, where="config")


@pytest.mark.parametrize("given", [(), (("tissue", "Liver", 5),)])
def test_tuples_of_tuples_stay_as_they_are(given: tuple[tuple[str, str, int], ...]) -> None:
    assert build(GenerateConfig, {"n": 5, "condition": given}).condition == given
