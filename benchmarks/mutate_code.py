"""Change the code in one place at a time: a test of the module must notice.

    OMP_NUM_THREADS=1 python benchmarks/mutate_code.py --out benchmarks/results/mutate_code.json
    ... --only m1pipe.data.splits --show

Mutants are drawn among the comparisons, operators, numbers, truth values and conditions of a
module: a comparison turned or made strict, plus for minus, times for divided by, and for or, a
number one higher, a condition negated. Each is put into a forked child of a process that has
everything imported, in place of the module's own functions wherever they are held; the module's
tests run there until one fails. Those that survive are listed with their line; `EQUIVALENT` names
those that change nothing, with the reason.
"""

import argparse
import ast
import copy
import importlib
import io
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from world import load_everything

import m1pipe

ROOT = Path(__file__).parents[1]
TESTS = {
    "m1pipe.evaluation.significance": (
        "evaluation/test_evaluation_significance.py",
        "evaluation/test_evaluation_draws.py::test_draws_t_by_hand",
        "evaluation/test_evaluation_draws.py::test_draws_t_of_one_draw_is_nadeau_and_bengios",
    ),
    "m1pipe.evaluation.compare": ("evaluation/test_evaluation_compare.py",),
    "m1pipe.evaluation.equivalence": ("evaluation/test_evaluation_equivalence.py",),
    "m1pipe.data.splits": ("data/test_data_splits.py",),
    "m1pipe.heads.linear": ("heads/test_heads_linear.py",),
    "m1pipe.heads.ridge": ("heads/test_heads_linear.py",),
    "m1pipe.heads.logistic": ("heads/test_heads_linear.py",),
    "m1pipe.models.likelihoods": ("models/test_models_likelihoods.py",),
    "m1pipe.models.count_likelihoods": ("models/test_models_zeros_and_counts.py",),
    "m1pipe.data.units": ("data/test_data_units.py",),
    "m1pipe.data.recipe": ("data/test_data_recipe.py",),
    "m1pipe.data.names": ("data/test_data_names.py",),
    "m1pipe.data.transforms": ("data/test_data_transforms.py",),
}
EQUIVALENT: dict[str, str] = {}
SECONDS = 240
PYTEST = (
    *("-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of what is imported before the fork
)
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip


def sites(tree: ast.Module) -> list[tuple[int, str]]:
    """Nodes that can be changed, by their place in a walk, and how."""
    found = []
    told = {id(part) for node in ast.walk(tree) for part in _not_computed(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in told:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            found.append((number, "comparison"))
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
            found.append((number, "operator"))
        elif isinstance(node, ast.BoolOp):
            found.append((number, "and, or"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            found.append((number, "constant"))
        elif isinstance(node, ast.If | ast.IfExp):
            found.append((number, "condition"))
    return found


def _not_computed(node: ast.AST) -> Iterator[ast.AST]:
    """What is below annotations, messages and decorators: it decides no number."""
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.FunctionDef):
        parts = [node.returns, *node.decorator_list]
    elif isinstance(node, ast.arguments):  # any seed will do
        named = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        parts = [default for argument, default in named if argument.arg == "seed"]
    elif isinstance(node, ast.arg | ast.AnnAssign):
        parts = [node.annotation]
    elif isinstance(node, ast.Raise):
        parts = [node.exc]
    elif isinstance(node, ast.JoinedStr):
        parts = [node]
    for part in parts:
        if part is not None:
            yield from ast.walk(part)


def mutant(tree: ast.Module, number: int) -> tuple[ast.Module, str]:
    """The module with one node changed, and the new text of its line."""
    changed = copy.deepcopy(tree)
    node: Any = list(ast.walk(changed))[number]
    if isinstance(node, ast.Compare):
        node.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        node.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.test = ast.UnaryOp(ast.Not(), node.test)
    ast.fix_missing_locations(changed)
    return changed, f"line {node.lineno}: {ast.unparse(node)[:110]}"


def put_in_place(module: ModuleType, tree: ast.Module) -> None:
    """Run a module's changed code, and give its objects to all that hold the old ones."""
    old = dict(vars(module))
    exec(compile(tree, str(module.__file__), "exec"), vars(module))
    for name, other in list(sys.modules.items()):
        if not name.startswith("m1pipe") or other is module:
            continue
        for key, value in list(vars(other).items()):
            if key in old and value is old[key] and getattr(module, key, value) is not value:
                setattr(other, key, getattr(module, key))


def is_killed(module: ModuleType, tree: ast.Module, tests: list[str]) -> bool:
    """Whether a test fails, or does not end, with the changed code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(SECONDS)
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                put_in_place(module, tree)
                code = int(pytest.main([*PYTEST, f"--rootdir={ROOT}", *tests]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) != 0


def run_module(name: str, n: int, seed: int, *, show: bool = False) -> dict[str, Any]:
    """Mutants of a module: how many, how many a test killed, and which survived."""
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    tests = [str(ROOT / "tests" / file) for file in TESTS[name]]
    begun = time.monotonic()
    if is_killed(module, tree, tests):
        raise SystemExit(f"{name}: its tests fail without any change")
    places = sites(tree)
    drawn = np.random.default_rng(seed).permutation(len(places))[:n]
    alive, equivalent = [], []
    for i in sorted(drawn):
        changed, text = mutant(tree, places[i][0])
        if is_killed(module, changed, tests):
            continue
        known = EQUIVALENT.get(f"{name}: {text.partition(': ')[2]}")
        (alive if known is None else equivalent).append(f"{places[i][1]}, {text}")
        if show and known is None:
            print("   ", alive[-1], flush=True)
    found = {"module": name, "places": len(places), "mutants": len(drawn)}
    found |= {"killed": len(drawn) - len(alive) - len(equivalent), "equivalent": equivalent}
    share = found["killed"] / max(1, len(drawn) - len(equivalent))
    print(
        f"{name}: {share:.0%} of {len(drawn)} killed, {time.monotonic() - begun:.0f} s", flush=True
    )
    return {**found, "alive": alive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a module")
    parser.add_argument("--show", action="store_true", help="survivors as they are found")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    load_everything()
    found = []
    for name in chosen.only or TESTS:
        found.append(run_module(name, chosen.n, chosen.seed, show=chosen.show))
    if chosen.out is not None:
        facts = {"m1pipe": m1pipe.__version__, "python": platform.python_version()}
        facts |= {"seed": chosen.seed}
        chosen.out.write_text(json.dumps({**facts, "modules": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
