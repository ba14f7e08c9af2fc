"""Every small mistake that could be in a file, and a random sample of them.

Operators are those of Cosmic Ray that leave code which runs, and one of our own: a statement that
is missing. Bitwise operators and comparisons of another kind (``is`` for ``<``) are left out:
whatever runs them notices, so that they would say nothing about the tests.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import PythonNode
from parso.tree import NodeOrLeaf

_LEFT_OUT = re.compile(
    "Bit|Shift|Invert|Variable|_Is_(?!IsNot)|_IsNot_(?!Is)|(?<!IsNot)_Is$|(?<!Is)_IsNot$"
)
_Position = tuple[tuple[int, int], tuple[int, int]]


class RemoveStatement(Operator):  # type: ignore[misc]
    """Leaves out a call, a change of an attribute or of an item, or a ``+=``."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[_Position]:
        """Yield the statement of a line if something could notice that it is missing."""
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        is_call = statement.type == "atom_expr" and statement.get_code().endswith(")")
        if is_call or (statement.type == "expr_stmt" and _changes_something(statement)):
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: PythonNode, index: int) -> PythonNode:
        """Put ``pass`` where the statement was."""
        nothing = parso.parse("pass").children[0]
        nothing.prefix = node.get_first_leaf().prefix
        node.children[0] = nothing
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what the operator does."""
        return (Example("x.y = 1\n", "pass\n"), Example("x += 1\n", "pass\n"))


def operators() -> dict[str, Operator]:
    """Return the operators by name."""
    provider = OperatorProvider()
    names = [name for name in provider if not _LEFT_OUT.search(name)]
    return {name: provider[name]() for name in names} | {"RemoveStatement": RemoveStatement()}


OPERATORS = operators()


def _changes_something(assignment: PythonNode) -> bool:
    """Whether it changes what there is; a name never bound is noticed by whatever runs the line."""
    target, equals = assignment.children[:2]
    is_augmented = equals.type == "operator" and equals.value != "="
    return is_augmented or target.type == "atom_expr"


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file.

    Attributes
    ----------
    path : the file, relative to the root of the repository.
    line : where the mistake begins, from 1.
    operator, occurrence : what makes it, and at which of the operator's places in the file.
    """

    path: str
    line: int
    operator: str
    occurrence: int

    @property
    def module(self) -> str:
        """Dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def code(self) -> str:
        """The file with the mistake in it."""
        right = Path(self.path).read_text()
        code = mutate_code(right, OPERATORS[self.operator], self.occurrence)
        assert code is not None, f"{self} does not exist"
        return str(code)

    @cached_property
    def change(self) -> tuple[str, str]:
        """The lines that differ, before and after, each as one line without indentation."""
        right, wrong = Path(self.path).read_text().splitlines(), self.code.splitlines()
        while right and wrong and right[0] == wrong[0]:
            del right[0], wrong[0]
        while right and wrong and right[-1] == wrong[-1]:
            del right[-1], wrong[-1]
        return " ".join(map(str.strip, right)), " ".join(map(str.strip, wrong))

    @property
    def is_code(self) -> bool:
        """Whether it can be compiled: of ``f(x, /)`` not every change can."""
        try:
            compile(self.code, self.path, "exec")
        except SyntaxError:
            return False
        return True

    def __str__(self) -> str:
        before, after = self.change
        return f"{self.path}:{self.line}: {before}  ->  {after}"


def places(path: str) -> dict[_Position, list[Mutant]]:
    """Return the mutants of a file by the stretch of code that they change."""
    nodes = list(ast_nodes(get_ast(Path(path).read_text())))
    found: dict[_Position, list[Mutant]] = {}
    for name, operator in OPERATORS.items():
        positions = (p for node in nodes for p in operator.mutation_positions(node))
        for occurrence, (start, stop) in enumerate(positions):
            found.setdefault((start, stop), []).append(Mutant(path, start[0], name, occurrence))
    return found


def draw(paths: Sequence[str], number: int, seed: int) -> list[Mutant]:
    """Return up to `number` mutants of `paths`, one of each place at most, in random order."""
    dice = random.Random(seed)
    everywhere = [mutants for path in paths for _, mutants in sorted(places(path).items())]
    dice.shuffle(everywhere)
    chosen = (dice.choice(mutants) for mutants in everywhere)
    return list(islice((mutant for mutant in chosen if mutant.is_code), number))
