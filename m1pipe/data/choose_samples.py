"""Samples chosen by their annotations: COLUMN~REGEX, or a condition.

A condition is parsed as Python is, and every part of its tree is looked up here: names of columns,
literals, comparisons, and, or, not, in, and five methods. Nothing of it is ever executed. A missing
value makes a comparison neither true nor false.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.data.labels import listed_columns
from m1pipe.data.regex import compile_pattern, texts_with
from m1pipe.errors import InputError, did_you_mean

LONGEST = 20_000
DEEPEST = 50
LARGEST = 2**63
INDEX = "index"
_SEGMENT = re.compile(
    r"""(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`(?P<name>[^`]*)`|(?P<sign>[&|\r\n])""",
    re.DOTALL,
)
_WORD = re.compile(r"[^\s=<>!&|()'\"`~,]+")
_SIGNS = {"&": " and ", "|": " or "}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_EQUALITY = (ast.Eq, ast.NotEq)
_MEMBERSHIP = (ast.In, ast.NotIn)
_ABSENCE = ("isna", "notna", "isnull", "notnull")
_TEXT_METHODS = ("contains", "startswith", "endswith")
_ALLOWED = (
    "columns, numbers and text, ==, !=, <, <=, >, >=, in [...], not in [...], and, or, not, "
    "COLUMN.isna(), COLUMN.notna(), COLUMN.str.contains('...'), startswith, endswith"
)


@dataclass(frozen=True)
class _Truth:
    """For which samples something is true, and for which false; where neither, it is unknown."""

    yes: np.ndarray
    no: np.ndarray


@dataclass(frozen=True)
class _Column:
    """A column: its name, values, and which of them are there."""

    name: str
    values: pd.Series
    known: np.ndarray

    @property
    def is_number(self) -> bool:
        """Numbers, or true and false."""
        return getattr(self.values.dtype, "kind", "O") in "biuf"

    @property
    def numbers(self) -> np.ndarray:
        """Values of a column of numbers; what pandas knows to be missing is 0."""
        kind = getattr(self.values.dtype, "numpy_dtype", None)
        if kind is None:
            return np.asarray(self.values.to_numpy())
        return np.asarray(self.values.to_numpy(dtype=kind, na_value=kind.type(0)))

    def by_level(self, test: Callable[[list[Any]], list[bool]]) -> "_Truth":
        """Truth of a test that is made once for each level."""
        codes, levels = pd.factorize(self.values)
        hits = np.array([*test(list(levels)), False], dtype=bool)[codes]
        return _Truth(hits & self.known, ~hits & self.known)


def matching_samples(obs: pd.DataFrame, where: str, *, option: str = "where") -> np.ndarray:
    """Samples for which a condition holds.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    where : str
        ``COLUMN~REGEX``: the regular expression is found in the column, in upper or lower case;
        ``*~REGEX``: in any column of text. COLUMN is any column that exists, whatever its name
        holds. Anything else is a condition, such as ``tissue == "Liver" and age > 50``, as `holds`
        takes it. A missing value never matches.
    option : str
        That the condition was given by, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If the condition cannot be understood, or holds for no sample.
    """
    by_regex = _apart(obs, where)
    if by_regex is not None:
        chosen = _by_regex(obs, *by_regex, option)
    else:
        chosen = holds(obs, where, option=option)
    if not chosen.any():
        raise InputError(f"{option}: {where!r} holds for none of the {len(obs):,} samples")
    return chosen


def require_column(obs: pd.DataFrame, column: str, option: str) -> None:
    """Refuse annotations of samples without a column, naming those that there are."""
    if column not in obs:
        raise InputError(
            f"{option}: expected the column {column} among the samples' annotations; found "
            f"{listed_columns(obs)}{did_you_mean(column, obs)}"
        )


def holds(obs: pd.DataFrame, condition: str, *, option: str = "where") -> np.ndarray:
    """Samples for which a condition is true.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    condition : str
        Such as ``tissue == "Liver" and age > 50``. A name that is no word stands in backticks;
        `index` is the sample's own, unless a column has that name.
    option : str
        That it was given by, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If it holds anything but what is allowed, with the place; if a column is not there, or
        text is compared with numbers.
    """
    return _Condition(obs, condition, option).truth().yes


class _Condition:
    """A condition's tree beside its text, whose places messages name."""

    def __init__(self, obs: pd.DataFrame, text: str, option: str) -> None:
        self.obs, self.text, self.option = obs, text, option
        if len(text) > LONGEST:
            raise InputError(
                f"{option}: expected a condition of at most {LONGEST:,} characters; found "
                f"{len(text):,}"
            )
        self.names: dict[str, str] = {}
        self.places: list[int] = []
        self.plain = self._without_backticks()

    def truth(self) -> _Truth:
        """What the whole is."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of backslashes in text
                tree = ast.parse(self.plain.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or "it cannot be read"
            at = " (@ names nothing here)" if "@" in self.text else ""
            raise self._fault(f"found {_short(self.text)}: {reason}{at}") from None
        return self._truth(tree.body, 0)

    def _without_backticks(self) -> str:
        """The text with words for what stands in backticks, and & and | as `and` and `or`."""
        parts, done = [], 0

        def add(part: str, place: int, *, step: int) -> None:
            parts.append(part)
            self.places += [place + step * i for i in range(len(part))]

        for found in _SEGMENT.finditer(self.text):
            add(self.text[done : found.start()], done, step=1)
            done = found.end()
            if found["name"] is not None:
                word = f"_column_{len(self.names)}_"
                self.names[word] = found["name"]
                add(word, found.start(), step=0)
            elif found["sign"] is not None:
                add(_SIGNS.get(found["sign"], " "), found.start(), step=0)
            else:
                add(found[0], found.start(), step=1)
        add(self.text[done:], done, step=1)
        return "".join(parts)

    def _fault(self, found: str, node: ast.AST | None = None) -> InputError:
        where = ""
        if node is not None:
            where = f" at character {self._place(node) + 1} of {_short(self.text)}"
        return InputError(
            f"{self.option}: expected COLUMN~REGEX or a condition of {_ALLOWED}, on the columns "
            f"{listed_columns(self.obs)}; {found}{where}"
        )

    def _place(self, node: ast.AST) -> int:
        """Where a part of the tree begins in the text as it was given."""
        stripped = self.plain.strip()
        start = len(self.plain) - len(self.plain.lstrip())
        offset = getattr(node, "col_offset", 0)
        column = len(stripped.encode()[:offset].decode(errors="ignore"))
        return self.places[min(start + column, len(self.places) - 1)]

    def _truth(self, node: ast.expr, depth: int) -> _Truth:
        if depth > DEEPEST:
            raise self._fault(f"found more than {DEEPEST} levels of brackets", node)
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(value, depth + 1) for value in node.values]
            yes, no = [part.yes for part in parts], [part.no for part in parts]
            if isinstance(node.op, ast.And):
                return _Truth(np.logical_and.reduce(yes), np.logical_or.reduce(no))
            return _Truth(np.logical_or.reduce(yes), np.logical_and.reduce(no))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            inner = self._truth(node.operand, depth + 1)
            return _Truth(inner.no, inner.yes)
        if isinstance(node, ast.Compare):
            return self._chain(node)
        if isinstance(node, ast.Call):
            return self._method(node)
        if isinstance(node, ast.Name):
            return self._flag(self._column(node), node)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            every = np.full(len(self.obs), node.value)
            return _Truth(every, ~every)
        raise self._fault(f"found {_kind(node)}", node)

    def _flag(self, column: _Column, node: ast.expr) -> _Truth:
        """A column of true and false by itself."""
        if not pd.api.types.is_bool_dtype(column.values.dtype):
            raise self._fault(
                f"found the column {column.name!r} alone, which is not true or false for each "
                "sample",
                node,
            )
        values = column.numbers.astype(bool)
        return _Truth(values & column.known, ~values & column.known)

    def _chain(self, node: ast.Compare) -> _Truth:
        sides = [node.left, *node.comparators]
        parts = [
            self._compared(left, op, right)
            for left, op, right in zip(sides, node.ops, sides[1:], strict=False)
        ]
        return _Truth(
            np.logical_and.reduce([part.yes for part in parts]),
            np.logical_or.reduce([part.no for part in parts]),
        )

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Truth:
        if isinstance(op, _MEMBERSHIP):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._fault("found no list in brackets after `in`", right)
            values = [self._literal(item) for item in right.elts]
            found = self._in(self._column(left), values, right)
            return found if isinstance(op, ast.In) else _Truth(found.no, found.yes)
        if type(op) not in _ORDER:
            raise self._fault("found `is`: write == or .isna()", right)
        if isinstance(left, ast.Name) and isinstance(right, ast.Name):
            return self._two_columns(self._column(left), op, self._column(right), right)
        if not isinstance(left, ast.Name) and isinstance(right, ast.Name):
            left, right = right, left
            op = _MIRRORED.get(type(op), type(op))()
        return self._with_literal(self._column(left), op, self._literal(right), right)

    def _two_columns(self, a: _Column, op: ast.cmpop, b: _Column, node: ast.expr) -> _Truth:
        known, compare = a.known & b.known, _ORDER[type(op)]
        if a.is_number and b.is_number:
            hits = compare(a.numbers, b.numbers)
        elif isinstance(op, _EQUALITY) and not a.is_number and not b.is_number:
            hits = compare(a.values.astype(str).to_numpy(), b.values.astype(str).to_numpy())
        else:
            raise self._fault(f"found {a.name!r} and {b.name!r}, which cannot be compared", node)
        return _Truth(known & hits, known & ~hits)

    def _with_literal(self, column: _Column, op: ast.cmpop, value: Any, node: ast.expr) -> _Truth:
        compare = _ORDER[type(op)]
        if column.is_number:
            if isinstance(value, str):
                raise self._fault(f"found text beside numbers of {column.name!r}", node)
            with np.errstate(over="ignore"):  # of a number beyond the column's type
                hits = np.asarray(compare(column.numbers, value))
            return _Truth(hits & column.known, ~hits & column.known)
        if not isinstance(value, str):
            return column.by_level(
                lambda levels: [compare(n, value) for n in self._as_numbers(column, levels, node)]
            )
        if isinstance(op, _EQUALITY):
            return column.by_level(lambda levels: [compare(str(level), value) for level in levels])
        ranks = self._ranks(column, value, node)
        return column.by_level(
            lambda levels: [compare(ranks[str(level)], ranks[value]) for level in levels]
        )

    def _as_numbers(self, column: _Column, levels: list[Any], node: ast.expr) -> list[float]:
        """Levels that are numbers, or text of numbers, all of them."""
        try:
            return [float(level) for level in levels]
        except (TypeError, ValueError):
            raise self._fault(
                f"found a number beside the column {column.name!r} of text, such as "
                f"{str(levels[0])!r}",
                node,
            ) from None

    def _ranks(self, column: _Column, value: str, node: ast.expr) -> dict[str, int]:
        """Places of the levels of an ordered categorical."""
        kind = column.values.dtype
        if not isinstance(kind, pd.CategoricalDtype) or not kind.ordered:
            raise self._fault(f"found an order of {column.name!r}: text has none", node)
        ranks = {str(level): i for i, level in enumerate(kind.categories)}
        if value not in ranks:
            raise self._fault(f"found {value!r}, which is no level of {column.name!r}", node)
        return ranks

    def _in(self, column: _Column, values: list[Any], node: ast.expr) -> _Truth:
        equal = [self._with_literal(column, ast.Eq(), value, node) for value in values]
        hits = np.zeros(len(self.obs), dtype=bool)
        for found in equal:
            hits |= found.yes
        return _Truth(hits, column.known & ~hits)

    def _method(self, node: ast.Call) -> _Truth:
        """COLUMN.isna() and its like; COLUMN.str.contains('...') and its like."""
        function = node.func
        if not isinstance(function, ast.Attribute):
            raise self._fault("found a call", node)
        name, owner = function.attr, function.value
        if name in _ABSENCE and isinstance(owner, ast.Name):
            if node.args or node.keywords:
                raise self._fault(f"found something in the brackets of {name}()", node)
            known = self._column(owner).known
            return _Truth(~known, known) if name in ("isna", "isnull") else _Truth(known, ~known)
        if (
            name not in _TEXT_METHODS
            or not isinstance(owner, ast.Attribute)
            or owner.attr != "str"
            or not isinstance(owner.value, ast.Name)
        ):
            raise self._fault(f"found a call of {name!r}", node)
        if len(node.args) != 1 or node.keywords:
            raise self._fault(f"expected one text in the brackets of {name}('...')", node)
        wanted = self._literal(node.args[0])
        if not isinstance(wanted, str):
            raise self._fault(f"expected text in the brackets of {name}('...')", node)
        return self._text_test(self._column(owner.value), name, wanted, node)

    def _text_test(self, column: _Column, name: str, wanted: str, node: ast.expr) -> _Truth:
        if column.is_number:
            raise self._fault(f"found .str on the column {column.name!r} of numbers", node)
        if name == "contains":
            where = f"{self.option}: {column.name}.str.contains"
            pattern = compile_pattern(wanted, where)
            return column.by_level(lambda levels: texts_with(pattern, map(str, levels), where))
        if name == "startswith":
            return column.by_level(lambda levels: [str(x).startswith(wanted) for x in levels])
        return column.by_level(lambda levels: [str(x).endswith(wanted) for x in levels])

    def _column(self, node: ast.expr) -> _Column:
        if not isinstance(node, ast.Name):
            raise self._fault(f"expected a column; found {_kind(node)}", node)
        name = self.names.get(node.id, node.id)
        columns = [str(column) for column in self.obs.columns]
        if name not in columns:
            if name != INDEX:
                raise self._fault(f"found no column {name!r}{did_you_mean(name, columns)}", node)
            values = pd.Series(self.obs.index.astype(str), index=self.obs.index, dtype=object)
        elif columns.count(name) > 1:
            raise self._fault(f"found the column {name!r} twice", node)
        else:
            values = self.obs.iloc[:, columns.index(name)]
        return _Column(name, values, values.notna().to_numpy(dtype=bool))

    def _literal(self, node: ast.expr) -> Any:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
            if not isinstance(node, ast.Constant) or isinstance(node.value, str):
                raise self._fault(f"expected a number after the sign; found {_kind(node)}", node)
        value = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(value, str | bool | int | float):
            hints = {ast.List: ": write `in [...]`", ast.Constant: ": write .isna() for no value"}
            hint = hints.get(type(node), "")
            raise self._fault(f"expected a number or text; found {_kind(node)}{hint}", node)
        if isinstance(value, str):
            return value
        if not abs(value) < LARGEST and isinstance(value, int):
            raise self._fault("found a number of more than 18 digits", node)
        return sign * value


def _short(text: str) -> str:
    """A text as messages show it."""
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _kind(node: ast.AST) -> str:
    """What a part of a tree is, in words."""
    if isinstance(node, ast.Name):
        return f"the name {node.id!r}"
    if isinstance(node, ast.Constant):
        return f"the value {node.value!r}"
    if isinstance(node, ast.Attribute):
        return f"the attribute {node.attr!r}"
    if isinstance(node, ast.BinOp):
        signs = {ast.Pow: "a power", ast.MatMult: "an @"}
        return signs.get(type(node.op), "arithmetic")
    kinds: dict[type[ast.AST], str] = {
        ast.Call: "a call",
        ast.Lambda: "a lambda",
        ast.IfExp: "an if",
        ast.Subscript: "square brackets after a name",
        ast.ListComp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.GeneratorExp: "a comprehension",
        ast.NamedExpr: "an assignment",
        ast.JoinedStr: "an f-string",
        ast.UnaryOp: "a sign",
        ast.List: "a list",
        ast.Tuple: "a tuple",
    }
    return kinds.get(type(node), f"a {type(node).__name__}")


def _apart(obs: pd.DataFrame, where: str) -> tuple[str, str] | None:
    """Column and regular expression of COLUMN~REGEX; None where it is none."""
    places = [i for i, character in enumerate(where) if character == "~" and where[i + 1 :]]
    pairs = [(_plain(where[:i]), where[i + 1 :]) for i in places]
    columns = {"*", *map(str, obs.columns)}
    existing = [pair for pair in pairs if pair[0] and pair[0] in columns]
    return next(iter(existing + [pair for pair in pairs if _WORD.fullmatch(pair[0])]), None)


def _plain(column: str) -> str:
    return column.strip().removeprefix("`").removesuffix("`")


def _by_regex(obs: pd.DataFrame, column: str, regex: str, option: str) -> np.ndarray:
    pattern = compile_pattern(regex, option, flags=re.IGNORECASE)
    if column != "*":
        require_column(obs, column, option)
    chosen = np.zeros(len(obs), dtype=bool)
    for i, name in enumerate(map(str, obs.columns)):
        is_text = not pd.api.types.is_numeric_dtype(obs.iloc[:, i].dtype)
        if name == column or (column == "*" and is_text):
            codes, levels = pd.factorize(obs.iloc[:, i])
            hits = texts_with(pattern, map(str, levels), option)
            chosen |= np.array([*hits, False])[codes]
    return chosen
