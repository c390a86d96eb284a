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
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from pandas.arrays import BooleanArray

from m1pipe.data.labels import listed_columns
from m1pipe.data.regex import compile_pattern, texts_with
from m1pipe.errors import InputError, did_you_mean

LONGEST = 20_000
DEEPEST = 50
LARGEST = 2**63
INDEX = "index"
Compare = Callable[[Any, Any], Any]
_SEGMENT = re.compile(
    r"""(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`(?P<name>[^`]*)`|(?P<sign>[&|\r\n])""",
    re.DOTALL,
)
_WORD = re.compile(r"[^\s=<>!&|()'\"`~,]+")
_SIGNS = {"&": " and ", "|": " or "}
# A comparison, and the same with its sides exchanged.
_COMPARED = {
    ast.Lt: (operator.lt, operator.gt),
    ast.LtE: (operator.le, operator.ge),
    ast.Gt: (operator.gt, operator.lt),
    ast.GtE: (operator.ge, operator.le),
    ast.Eq: (operator.eq, operator.eq),
    ast.NotEq: (operator.ne, operator.ne),
}
_EQUALITY = (operator.eq, operator.ne)
_ALLOWED = (
    "columns, numbers and text, ==, !=, <, <=, >, >=, in [...], not in [...], and, or, not, "
    "COLUMN.isna(), COLUMN.notna(), COLUMN.str.contains('...'), startswith, endswith"
)


def matching_samples(obs: pd.DataFrame, where: str, *, option: str = "where") -> np.ndarray:
    """Samples for which a condition holds.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    where : str
        ``COLUMN~REGEX``: the regular expression is found in the column, in upper or lower case;
        ``*~REGEX``: in any column of text. COLUMN is any column that exists, whatever its name
        holds. Anything else is a condition, such as ``tissue == "Liver" and age > 50``, in which a
        name that is no word stands in backticks, and `index` is the sample's own, unless a column
        has that name. A missing value never matches.
    option : str
        That the condition was given by, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If the condition cannot be understood, with the place; if a column is not there, text is
        compared with numbers, or it holds for no sample.
    """
    by_regex = _apart(obs, where)
    if by_regex is not None:
        chosen = _by_regex(obs, *by_regex, option)
    else:
        truth = _Condition(obs, where, option).truth()
        chosen = truth.to_numpy(dtype=bool, na_value=False)
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


class _Condition:
    """A condition's tree beside its text, whose places messages name.

    What is true, false or unknown of each sample is a BooleanArray: and, or, not are Kleene's.
    """

    def __init__(self, obs: pd.DataFrame, text: str, option: str) -> None:
        self.obs, self.text, self.option = obs, text, option
        if len(text) > LONGEST:
            at_most = f"a condition of at most {LONGEST:,} characters"
            raise InputError(f"{option}: expected {at_most}; found {len(text):,}")
        self.names: dict[str, str] = {}
        self.places: list[int] = []
        self.plain = self._without_backticks()

    def truth(self) -> BooleanArray:
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

    def _truth(self, node: ast.expr, depth: int) -> BooleanArray:
        if depth > DEEPEST:
            raise self._fault(f"found more than {DEEPEST} levels of brackets", node)
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, [self._truth(value, depth + 1) for value in values])
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return ~self._truth(operand, depth + 1)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(sides, node.ops, sides[1:], strict=False)
                return reduce(operator.and_, [self._compared(*pair) for pair in pairs])
            case ast.Call():
                return self._method(node)
            case ast.Name():
                column = self._column(node)
                if not pd.api.types.is_bool_dtype(column.dtype):
                    alone = f"the column {column.name!r} alone, which is not true or false"
                    raise self._fault(f"found {alone} for each sample", node)
                return _where(_numbers(column), column)
            case ast.Constant(value=bool(value)):
                return _where(np.full(len(self.obs), value))
        raise self._fault(f"found {_kind(node)}", node)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> BooleanArray:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._fault("found no list in brackets after `in`", right)
            values = [self._literal(item) for item in right.elts]
            column = self._column(left)
            equal = [self._with_literal(column, operator.eq, value, right) for value in values]
            found = reduce(operator.or_, equal, _where(np.zeros(len(column)), column))
            return found if isinstance(op, ast.In) else ~found
        if type(op) not in _COMPARED:
            raise self._fault("found `is`: write == or .isna()", right)
        compare, exchanged = _COMPARED[type(op)]
        if isinstance(left, ast.Name) and isinstance(right, ast.Name):
            return self._two_columns(self._column(left), compare, self._column(right), right)
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            left, right, compare = right, left, exchanged
        return self._with_literal(self._column(left), compare, self._literal(right), right)

    def _two_columns(
        self, a: pd.Series, compare: Compare, b: pd.Series, node: ast.expr
    ) -> BooleanArray:
        if _is_number(a) and _is_number(b):
            hits = compare(_numbers(a), _numbers(b))
        elif compare in _EQUALITY and not _is_number(a) and not _is_number(b):
            hits = compare(a.astype(str).to_numpy(), b.astype(str).to_numpy())
        else:
            raise self._fault(f"found {a.name!r} and {b.name!r}, which cannot be compared", node)
        return BooleanArray(
            np.asarray(hits, dtype=bool), (a.isna() | b.isna()).to_numpy(dtype=bool)
        )

    def _with_literal(
        self, column: pd.Series, compare: Compare, value: Any, node: ast.expr
    ) -> BooleanArray:
        if _is_number(column):
            if isinstance(value, str):
                raise self._fault(f"found text beside numbers of {column.name!r}", node)
            with np.errstate(over="ignore"):  # of a number beyond the column's type
                return _where(compare(_numbers(column), value), column)
        if not isinstance(value, str):
            return _by_level(
                column,
                lambda levels: [compare(n, value) for n in self._as_numbers(column, levels, node)],
            )
        if compare in _EQUALITY:
            return _by_level(column, lambda levels: [compare(str(x), value) for x in levels])
        ranks = self._ranks(column, value, node)
        least = ranks[value]
        return _by_level(column, lambda levels: [compare(ranks[str(x)], least) for x in levels])

    def _as_numbers(self, column: pd.Series, levels: list[Any], node: ast.expr) -> list[float]:
        """Levels that are numbers, or text of numbers, all of them."""
        try:
            return [float(level) for level in levels]
        except (TypeError, ValueError):
            beside = f"the column {column.name!r} of text, such as {str(levels[0])!r}"
            raise self._fault(f"found a number beside {beside}", node) from None

    def _ranks(self, column: pd.Series, value: str, node: ast.expr) -> dict[str, int]:
        """Places of the levels of an ordered categorical."""
        kind = column.dtype
        if not isinstance(kind, pd.CategoricalDtype) or not kind.ordered:
            raise self._fault(f"found an order of {column.name!r}: text has none", node)
        ranks = {str(level): i for i, level in enumerate(kind.categories)}
        if value not in ranks:
            raise self._fault(f"found {value!r}, which is no level of {column.name!r}", node)
        return ranks

    def _method(self, node: ast.Call) -> BooleanArray:
        """COLUMN.isna() and its like; COLUMN.str.contains('...') and its like."""
        match node.func:
            case ast.Attribute(
                attr="isna" | "notna" | "isnull" | "notnull" as name, value=ast.Name() as owner
            ):
                if node.args or node.keywords:
                    raise self._fault(f"found something in the brackets of {name}()", node)
                absent = self._column(owner).isna().to_numpy(dtype=bool)
                return _where(absent if name in ("isna", "isnull") else ~absent)
            case ast.Attribute(
                attr="contains" | "startswith" | "endswith" as name,
                value=ast.Attribute(attr="str", value=ast.Name() as owner),
            ):
                if len(node.args) != 1 or node.keywords:
                    raise self._fault(f"expected one text in the brackets of {name}('...')", node)
                wanted = self._literal(node.args[0])
                if not isinstance(wanted, str):
                    raise self._fault(f"expected text in the brackets of {name}('...')", node)
                return self._text_test(self._column(owner), name, wanted, node)
            case ast.Attribute(attr=name):
                raise self._fault(f"found a call of {name!r}", node)
        raise self._fault("found a call", node)

    def _text_test(self, column: pd.Series, name: str, wanted: str, node: ast.expr) -> BooleanArray:
        if _is_number(column):
            raise self._fault(f"found .str on the column {column.name!r} of numbers", node)
        if name == "contains":
            where = f"{self.option}: {column.name}.str.contains"
            pattern = compile_pattern(wanted, where)
            return _by_level(column, lambda levels: texts_with(pattern, map(str, levels), where))
        test = str.startswith if name == "startswith" else str.endswith
        return _by_level(column, lambda levels: [test(str(x), wanted) for x in levels])

    def _column(self, node: ast.expr) -> pd.Series:
        if not isinstance(node, ast.Name):
            raise self._fault(f"expected a column; found {_kind(node)}", node)
        name = self.names.get(node.id, node.id)
        columns = [str(column) for column in self.obs.columns]
        if columns.count(name) > 1:
            raise self._fault(f"found the column {name!r} twice", node)
        if name in columns:
            return self.obs.iloc[:, columns.index(name)].rename(name)
        if name != INDEX:
            raise self._fault(f"found no column {name!r}{did_you_mean(name, columns)}", node)
        return pd.Series(self.obs.index.astype(str), index=self.obs.index, dtype=object, name=name)

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


def _where(hits: Any, *columns: pd.Series) -> BooleanArray:
    """Where something is true of some columns; unknown where one of them holds nothing."""
    unknown = np.zeros(len(hits), dtype=bool)
    for column in columns:
        unknown |= column.isna().to_numpy(dtype=bool)
    return BooleanArray(np.asarray(hits, dtype=bool), unknown)


def _by_level(column: pd.Series, test: Callable[[list[Any]], list[bool]]) -> BooleanArray:
    """Where a test is true that is made once for each level."""
    codes, levels = pd.factorize(column)
    return _where(np.array([*test(list(levels)), False], dtype=bool)[codes], column)


def _is_number(column: pd.Series) -> bool:
    """Numbers, or true and false."""
    return getattr(column.dtype, "kind", "O") in "biuf"


def _numbers(column: pd.Series) -> np.ndarray:
    """Values of a column of numbers; what pandas knows to be missing is 0."""
    kind = getattr(column.dtype, "numpy_dtype", None)
    options = {} if kind is None else {"dtype": kind, "na_value": kind.type(0)}
    return np.asarray(column.to_numpy(**options))


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
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return "a comprehension"
    kinds: dict[type[ast.AST], str] = {
        ast.IfExp: "an if",
        ast.Subscript: "square brackets after a name",
        ast.NamedExpr: "an assignment",
        ast.JoinedStr: "an f-string",
        ast.UnaryOp: "a sign",
    }
    return kinds.get(type(node), f"a {type(node).__name__.lower()}")


def _apart(obs: pd.DataFrame, where: str) -> tuple[str, str] | None:
    """Column and regular expression of COLUMN~REGEX; None where it is none."""
    places = [i for i, character in enumerate(where) if character == "~" and where[i + 1 :]]
    pairs = [
        (where[:i].strip().removeprefix("`").removesuffix("`"), where[i + 1 :]) for i in places
    ]
    columns = {"*", *map(str, obs.columns)}
    existing = [pair for pair in pairs if pair[0] and pair[0] in columns]
    return next(iter(existing + [pair for pair in pairs if _WORD.fullmatch(pair[0])]), None)


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
