"""Configurations put together, checked, written out and read: layers, JSON and TOML, sizes.

Precedence when a configuration is put together: typed option > file > preset > default.
"""

import dataclasses
import importlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_args

from m1pipe.errors import InputError, did_you_mean

Config = TypeVar("Config")
MOST_RATIO = 100
FEW_NAMES = 12
_LARGEST_FILE = 10_000_000  # bytes of a configuration or a record of one
_PLAIN: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}


def setting(
    default: Any,
    text: str,
    *,
    option: str | None = None,
    metavar: str | None = None,
    shown: str | None = None,
    section: str = "",
) -> Any:
    """A field of a configuration that is an option of a command as well.

    Parameters
    ----------
    default : object
    text : str
        Help of the option.
    option : str, optional
        Its name, where it is not that of the field, or several with spaces between them;
        "--a/--no-a" for a switch.
    metavar : str, optional
        What stands for its value in the help.
    shown : str, optional
        What the help says of a default that the data decide.
    section : str
        Heading in the help of a long command; rare settings have none.
    """
    about_value = {"text": text, "metavar": metavar, "shown": shown}
    return dataclasses.field(
        default=default, metadata={**about_value, "option": option, "section": section}
    )


def parse_bytes(text: str) -> int:
    """Bytes meant by a size such as "4G", "512M", "1.5GiB" or "1000000".

    Raises
    ------
    InputError
        If the text is not a positive size.
    """
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    cleaned = text.strip().upper().removesuffix("IB").removesuffix("B")
    digits = cleaned.rstrip("KMGT")
    try:
        size = float(digits) * units[cleaned[len(digits) :]]
    except (ValueError, KeyError):
        size = 0.0
    if not 0 < size < float("inf"):
        raise InputError(f"memory: expected a size such as 4G or 512M; found {text!r}")
    return int(size)


def parse_ratio(augment: str | float) -> float | None:
    """Times its own size that `augment` makes every class; None for "balance".

    Raises
    ------
    InputError
        If it is neither "balance" nor a number above 1.
    """
    if augment == "balance":
        return None
    try:
        ratio = float(augment)
    except ValueError:
        ratio = 0.0
    if not 1 < ratio <= MOST_RATIO:
        raise InputError(
            f"augment: expected balance, or a number in (1, {MOST_RATIO}]; found {augment!r}"
        )
    return ratio


def read_config_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON or TOML configuration as a plain dictionary.

    Raises
    ------
    InputError
        If the file is missing, is neither JSON nor TOML, or does not hold a table.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"found {path.stat().st_size:,} bytes, above {_LARGEST_FILE:,}")
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a readable JSON or TOML file; {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a table of settings; found {type(value).__name__}")
    return value


def to_toml(values: Mapping[str, Any], place: str = "") -> str:
    """A table as TOML, its parts below its own values; keys and texts quoted as JSON quotes them.

    >>> print(to_toml({"x": "x.h5ad", "head": {"hidden": [4, 2], "own gene": True}}))
    x = "x.h5ad"
    <BLANKLINE>
    [head]
    hidden = [4, 2]
    "own gene" = true
    <BLANKLINE>
    """
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    text = "".join(f"{_toml_key(name)} = {_toml_value(value)}\n" for name, value in plain.items())
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = f"{place}{_toml_key(name)}"
            only_tables = value and all(isinstance(part, Mapping) for part in value.values())
            text += "" if only_tables else f"\n[{inner}]\n"
            text += to_toml(value, f"{inner}.")
    return text


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_value(name)


def _toml_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionary of a configuration, ready for JSON."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def in_words(config: Any) -> list[str]:
    """The settings that are not None, as NAME VALUE, for the record of a file."""
    return [f"{name} {value}" for name, value in to_dict(config).items() if value is not None]


def build(kind: type[Config], *layers: Mapping[str, Any], where: str = "config") -> Config:
    """Put a configuration together from layers, later ones winning.

    A layer may be nested (`{"model": {"beta": 0}}`) or flat (`{"beta": 0}`); a flat name is
    looked up in the parts. None values in a layer are skipped, so that absent options do not
    overwrite.

    Parameters
    ----------
    kind : type
        One of the configuration classes.
    *layers : mapping
        For example preset, file, typed options, in this order.
    where : str
        Named in the error message.

    Raises
    ------
    InputError
        On a name that the configuration does not have, or a value of the wrong kind.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(kind, merged, layer, where)
    return cast(Config, _construct(kind, merged, where))


def override(config: Config, given: Mapping[str, Any], *, where: str) -> Config:
    """A configuration with some settings, of its own or of its parts, in place of what it has.

    Parameters
    ----------
    config : object
        One of the configuration classes.
    given : mapping
        Nested or flat, as a layer of `build`.
    where : str
        Named in the error message.
    """
    if not given:
        return config
    return build(type(config), dataclasses.asdict(cast(Any, config)), given, where=where)


def parts_of(kind: type) -> dict[str, type]:
    """Fields of a configuration class that are configuration classes themselves."""
    return {
        f.name: f.type
        for f in dataclasses.fields(kind)
        if isinstance(f.type, type) and dataclasses.is_dataclass(f.type)
    }


def refuse_unknown(
    name: str,
    known: Iterable[str],
    where: str,
    what: str = "setting",
    place: str = "config.json of a finished run",
) -> NoReturn:
    """Refuse the name of a setting, or of a table, that nobody reads."""
    names = list(known)
    listed = f"known ones are {', '.join(names)}"
    if len(names) > FEW_NAMES:
        listed = f"all {len(names)} are in {place}"
    raise InputError(f"{where}: unknown {what} {name!r}; {listed}{did_you_mean(name, names)}")


def _merge(kind: type, into: dict[str, Any], layer: Mapping[str, Any], where: str) -> None:
    own = {f.name for f in dataclasses.fields(kind)}
    parts = parts_of(kind)
    for name, value in layer.items():
        if name in parts:
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: {name}: expected a table; found {value!r}")
            _merge(parts[name], into.setdefault(name, {}), value, f"{where}: {name}")
        elif name in own:
            if value is not None:
                into[name] = value
        else:
            homes = {f.name: p for p in reversed(parts) for f in dataclasses.fields(parts[p])}
            if name not in homes:
                refuse_unknown(name, sorted(own.union(homes)), where)
            if value is not None:
                into.setdefault(homes[name], {})[name] = value


def _construct(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    parts = parts_of(kind)
    arguments: dict[str, Any] = {}
    for f in dataclasses.fields(kind):
        if f.name in parts:
            arguments[f.name] = _construct(parts[f.name], values.get(f.name, {}), where)
        elif f.name in values:
            arguments[f.name] = _coerce(f, values[f.name], where)
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except TypeError:
        raise InputError(f"{where}: a setting is of the wrong kind: {dict(values)!r}") from None


def _coerce(f: "dataclasses.Field[Any]", value: Any, where: str) -> Any:
    """Lists become tuples and whole floats ints where the field wants them; bools stay apart."""
    text = str(f.type)
    if isinstance(value, list):
        value = tuple(value)
    one = next((word for word in text.split(" | ") if word.startswith("tuple[")), "")
    if one and not isinstance(value, str | tuple) and _is_one((value,), one):
        value = (value,)
    wants_bool = f.type is bool
    if wants_bool != isinstance(value, bool):
        raise InputError(f"{where}: {f.name}: expected {text}; found {value!r}")
    if f.type is float and isinstance(value, int) and not wants_bool:
        return float(value)
    if f.type is int and isinstance(value, float) and value.is_integer():
        return int(value)
    words = getattr(f.type, "__name__", text) if isinstance(f.type, type) else text
    if not any(_is_one(value, word) for word in words.split(" | ")):
        wanted = words.replace("tuple[", "a list of ").replace(", ...]", "")
        raise InputError(f"{where}: {f.name}: expected {wanted}; found {value!r}")
    return value


def _is_one(value: Any, word: str) -> bool:
    """Whether a value is of a plain type; of other types the configuration knows itself."""
    if word.startswith("tuple[") and word.endswith(", ...]"):
        inner = word.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, tuple) and all(_is_one(part, inner) for part in value)
    if word == "None":
        return value is None
    plain = _PLAIN.get(word, object)
    is_flag = word in _PLAIN and isinstance(value, bool)
    return isinstance(value, plain) and (word == "bool") == is_flag


def check_choice(name: str, value: object, kind: Any) -> None:
    """Refuse a value that is not among those of a Literal, or of a sequence.

    Raises
    ------
    InputError
    """
    known = get_args(kind) or kind
    if value not in known:
        near = did_you_mean(value, known)
        raise InputError(f"{name}: expected one of {', '.join(known)}; found {value!r}{near}")


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Refuse a number outside [low, high], or (low, high].

    Raises
    ------
    InputError
    """
    if not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        raise InputError(f"{name}: expected a number in {bracket}{low}, {high}]; found {value!r}")


def check_at_least(name: str, value: float | None, least: float) -> None:
    """Refuse a number below another; None passes.

    Raises
    ------
    InputError
    """
    if value is not None and value < least:
        raise InputError(f"{name}: expected at least {least}; found {value}")


def check_widths(name: str, widths: tuple[int, ...] | None) -> None:
    """Refuse layers without units.

    Raises
    ------
    InputError
    """
    if widths is not None and any(w < 1 for w in widths):
        raise InputError(f"{name}: expected layer widths of at least 1; found {widths!r}")


def optional_package(
    module: str, where: str, extra: str, *, package: str = "", way: str = ""
) -> Any:
    """A module of a package that an extra installs.

    Raises
    ------
    InputError
        If it is not installed; `way` says in the message what needs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"{where}: expected the package {package or module}{way}; found none: "
            f"pip install 'm1pipe[{extra}]'"
        ) from None
