"""A module with one small fault: Cosmic Ray's operators that make one a person could make, and two more.

Left alone is what cannot be a fault of behaviour (annotations, decorators, messages of errors, arguments like `strict=`), and the calls of
compiled loops: the faults are looked for on the numpy path, and `tests/serving/native/` holds the other to it.
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from random import Random
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

_SWAPPED = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul", "BitAnd_BitOr", "BitOr_BitAnd", "LShift_RShift"),
    *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq"),
    *("Is_IsNot", "IsNot_Is", "Delete_USub", "Delete_Not", "Delete_Invert"),
)
_KINDS = {name: "Unary" if "Delete" in name else "Binary" if at < 10 else "Comparison" for at, name in enumerate(_SWAPPED)}
_OTHERS = (
    *("AddNot", "NumberReplacer", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
)
_OPPOSITES = "min/max minimum/maximum any/all argmin/argmax sin/cos floor/ceil zeros/ones isnan/isfinite first/last"
_OPPOSITE = {one: other for a, b in (pair.split("/") for pair in _OPPOSITES.split()) for one, other in ((a, b), (b, a))}
_NO_BEHAVIOUR = {"strict", "repr", "compare", "gc", "copy", "maxsize", "casting", "indent", "parents", "exist_ok", "precision"}

Place = tuple[int, int]  # line from 1, column from 0


@dataclass(frozen=True)
class Mutant:
    """One faulty text of a module, and the lines in which it differs."""

    path: str
    line: int
    was: str
    became: str
    source: str
    planted: bool = False

    @classmethod
    def of(cls, path: str, before: str, after: str, planted: bool = False) -> "Mutant":
        old, new = before.splitlines(), after.splitlines()
        spans = [span for span in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if span[0] != "equal"]
        _, begin, end, new_begin, new_end = spans[0]
        was, became = (" / ".join(line.strip() for line in lines) for lines in (old[begin:end], new[new_begin:new_end]))
        return cls(path, begin + 1, was, became, after, planted)


class LeftOut(Operator):
    """A statement that changes something is left out: an item set, a name made again of itself, a call made for its effect, an error."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Place, Place]]:
        if node.parent is not None and node.parent.type == "simple_stmt" and _changes(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.python.tree.Keyword("pass", node.start_pos, node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class Opposite(Operator):
    """A function's opposite in its place."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Place, Place]]:
        if node.type == "name" and node.value in _OPPOSITE and node.get_next_leaf().value == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.python.tree.Name(_OPPOSITE[node.value], node.start_pos, node.prefix)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def _changes(node: Any) -> bool:
    if node.type == "raise_stmt":
        return True
    if node.type == "atom_expr":
        return bool(node.children[-1].type == "trailer" and node.children[-1].children[0].value == "(")
    if node.type != "expr_stmt":
        return False
    target, rest = node.children[0], "".join(child.get_code() for child in node.children[1:])
    if target.type == "atom_expr" or (node.children[1].type == "operator" and node.children[1].value != "="):
        return True
    names = [leaf.value for leaf in ast_nodes(parso.parse(rest)) if leaf.type == "name"]
    return target.type == "name" and target.value in names


def operators() -> list[Operator]:
    """Every operator whose faults a person could make."""
    swaps = [get_operator(f"core/Replace{kind}Operator_{name}")() for name, kind in _KINDS.items()]
    return [*swaps, *(get_operator(f"core/{name}")() for name in _OTHERS), LeftOut(), Opposite()]


def mutants_of(path: str, source: str, count: int, seed: int, functions: Collection[str] = ()) -> list[Mutant]:
    """So many faults of a module, or of some of its functions, no two at one place, chosen by the seed."""
    random, untouched = Random(f"{seed} {path}"), _untouched(source, functions)
    at: dict[Place, list[tuple[Operator, int]]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast(source)))
    for operator in operators():
        for number, place in enumerate(_places(operator, nodes)):
            if not any(begin <= place < end for begin, end in untouched):
                at[place].append((operator, number))
    places = sorted(at)
    random.shuffle(places)
    made = []
    for place in places:
        if len(made) == count:
            break
        operator, number = random.choice(at[place])
        after = mutate_code(source, operator, number)
        if after is not None and after != source:
            made.append(Mutant.of(path, source, after))
    return made


def _places(operator: Operator, nodes: Sequence[Any]) -> Iterator[Place]:
    for node in nodes:
        for begin, _ in operator.mutation_positions(node):
            yield begin


def _untouched(source: str, functions: Collection[str]) -> list[tuple[Place, Place]]:
    """Stretches of the text in which no fault is made. `functions`: outside of these none is, where any is named."""
    tree = ast.parse(source)
    found: list[ast.AST] = [node for node in tree.body if functions and getattr(node, "name", "") not in functions]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found += node.decorator_list
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += [node.returns] if node.returns else []
            found += [default for default in node.args.kw_defaults if default is not None]  # of a source, a rule: chosen by measurement
            found += [node] if node.name == "_compiled" else []
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            found.append(node.annotation)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found += node.exc.args
        elif isinstance(node, ast.keyword) and node.arg in _NO_BEHAVIOUR:
            found.append(node.value)
        elif isinstance(node, ast.If | ast.IfExp | ast.Assign | ast.Return) and "kernel." in _asked(node):
            found.append(node)
    return [((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in found]  # type: ignore[attr-defined]


def _asked(node: ast.If | ast.IfExp | ast.Assign | ast.Return) -> str:
    """What a statement turns on: its condition, or its value."""
    asked = node.test if isinstance(node, ast.If | ast.IfExp) else node.value
    return ast.unparse(asked) if asked is not None else ""
