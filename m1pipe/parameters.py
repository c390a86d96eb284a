"""What Python's help says of settings, made from the configurations that hold them."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from m1pipe.settings import parts_of

Documented = TypeVar("Documented", bound=Callable[..., Any])
SETTINGS = "    **settings\n"
_ATTRIBUTES = "Attributes\n----------\n"


def documented(
    *kinds: type, renamed: Mapping[str, str] | None = None, more: str = ""
) -> Callable[[Documented], Documented]:
    """Put a section Parameters, made from configurations, into the docstring of a class.

    Parameters
    ----------
    *kinds : type
        Configurations whose fields are the class's parameters.
    renamed : mapping of str to str, optional
        Fields whose parameter has another name.
    more : str
        Entries of parameters that are no fields, as they are to stand.
    """

    def add(cls: Documented) -> Documented:
        entries = dict(_entries(kinds, renamed or {}))
        entries |= {entry.split(" ", 1)[0]: entry for entry in _split(inspect.cleandoc(more))}
        found = [entries[name] for name in inspect.signature(cls).parameters]
        text = inspect.cleandoc(cls.__doc__ or "")
        section = "Parameters\n----------\n" + "\n".join(found) + "\n\n" + _ATTRIBUTES
        cls.__doc__ = text.replace(_ATTRIBUTES, section, 1)
        return cls

    return add


def takes_settings(kind: type) -> Callable[[Documented], Documented]:
    """Say of a function with `**settings` which these are: in its docstring and its signature.

    Parameters
    ----------
    kind : type
        The configuration that they are fields of, or of its parts.
    """

    def add(function: Documented) -> Documented:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        fields = {f.name: f for f in _fields(kind) if f.name not in names}
        kinds = [kind, *parts_of(kind).values()]
        entries = [text for name, text in _entries(kinds, {}) if name in fields]
        before, _, after = (function.__doc__ or "").partition(SETTINGS)
        after = after[re.search(r"^(?! {8})", after, re.M).start() :]  # type: ignore[union-attr]
        function.__doc__ = before + textwrap.indent("\n".join(entries), "    ") + "\n" + after
        keywords = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
            )
            for name, f in fields.items()
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *keywords]
        )
        return function

    return add


def _fields(kind: type) -> Iterator["dataclasses.Field[Any]"]:
    """Fields of a configuration and of its parts, without these."""
    for one in (kind, *parts_of(kind).values()):
        yield from (f for f in dataclasses.fields(one) if not dataclasses.is_dataclass(f.type))


def _entries(kinds: Collection[type], renamed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and entry of every field; of one that several have, that of the first."""
    seen: set[str] = set()
    for kind in kinds:
        meanings = _meanings(kind)
        for f in dataclasses.fields(kind):
            if f.name in seen or dataclasses.is_dataclass(f.type):
                continue
            seen.add(f.name)
            name = renamed.get(f.name, f.name)
            own, text = meanings.get(f.name), f.metadata.get("text", "")
            meaning = own if own and not (text and _is_shared(own, meanings)) else text
            head = f"{name} : {_words(f.type)}, default={f.default!r}"
            yield name, head + "\n" + textwrap.indent(meaning, "    ")


def _is_shared(meaning: str, meanings: Mapping[str, str]) -> bool:
    """Whether several fields are described together: the help of the option has its own."""
    return list(meanings.values()).count(meaning) > 1


def _meanings(kind: type) -> dict[str, str]:
    """What the docstring of a configuration says of its fields."""
    found: dict[str, str] = {}
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition(_ATTRIBUTES)
    for entry in _split(section):
        head, _, body = entry.partition("\n")
        for name in head.partition(" : ")[0].split(", "):
            found[name] = textwrap.dedent(body).strip()
    return found


def _split(section: str) -> list[str]:
    """Entries of a section, each beginning at its margin."""
    return [entry.rstrip() for entry in re.split(r"\n(?=\S)", section) if entry.strip()]


def _words(kind: Any) -> str:
    """A type as numpy's docstrings write it.

    >>> _words(tuple[int, ...] | None), _words(Literal["a", "b"])
    ('tuple of int or None', "{'a', 'b'}")
    """
    if get_origin(kind) is Literal:
        return "{" + ", ".join(map(repr, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        return f"tuple of {get_args(kind)[0].__name__}"
    if get_args(kind):
        return " or ".join(_words(part) for part in get_args(kind))
    return "None" if kind is type(None) else str(getattr(kind, "__name__", kind))
