"""The words of the house: a name means one thing, and docstrings say what the thing is from their first word on."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import pullback

SOURCE = Path(pullback.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef

TWICE = dict.fromkeys(
    ("Dice", "HausdorffDistance", "LandmarkError", "SDLogJ"),
    "the challenge's definition stands beside ours under its own name, in a module that says so",
)
"""Names that may mean two things, and why."""

EMPTY = re.compile(
    r"(about|after|along|any|as|at|both|by|each|every|for|from|how|in|it|its|many|more|no|none|of|one|several|so|some|"
    r"something|that|the same|these|they|this|those|to|what|whatever|where|which|who|whose|with|within)\b"
)
"""First words that name nothing."""


def test_a_class_means_one_thing():
    """Nor is a type of another kind named like a class elsewhere, but for options of the command line."""
    where = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign) and not module.startswith("cli/"):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in filter(re.compile(r"[A-Z]+[a-z]\w+").fullmatch, names):
                where[name].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1 and name not in TWICE} == {}


def test_an_exported_name_means_one_thing():
    """By the front door and by the doors of the rooms, a name is one object."""
    rooms = [importlib.import_module(f"pullback.{path.parent.name}") for path in SOURCE.glob("*/__init__.py")]
    meant = {name: {id(getattr(pullback, name))} for name in pullback.__all__}
    for room in rooms:
        for name in getattr(room, "__all__", ()):
            meant.setdefault(name, set()).add(id(getattr(room, name)))
    assert len(meant) > len(pullback.__all__)
    assert [name for name, things in meant.items() if len(things) > 1] == []


def documented(tree: ast.Module) -> Iterator[tuple[str, Documented, str]]:
    """Yield the module, its classes and functions, with their names and docstrings."""
    nodes: list[tuple[str, ast.AST]] = [("", tree)]
    while nodes:
        name, node = nodes.pop()
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text:
                yield name, node, text
        for child in ast.iter_child_nodes(node):
            own = child.name if isinstance(child, ast.ClassDef | ast.FunctionDef) else ""
            nodes.append((f"{name}.{own}".strip(".") if own else name, child))


def fault(node: Documented, text: str) -> str:
    """Say how the docstring of a thing begins wrongly; "" where it does not."""
    start = " ".join(text.lower().split()[:2])
    a_property = isinstance(node, ast.FunctionDef) and any("property" in ast.unparse(d) for d in node.decorator_list)
    if not start[0].isalpha() or EMPTY.match(start):
        return f"begins with {start!r}, which names nothing"
    if not a_property and start.startswith("whether "):
        return f"begins with {start!r}, as only a property does"
    if isinstance(node, ast.FunctionDef) and not a_property and re.match(r"(an?|the)\b", start):
        return f"begins with {start!r}; a function begins with a verb: Return …"
    return ""


@pytest.mark.parametrize("module", TREES)
def test_a_docstring_begins_with_a_noun_or_a_verb(module):
    faults = {name or "module": fault(node, text) for name, node, text in documented(TREES[module])}
    assert {name: what for name, what in faults.items() if what} == {}


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("def f():\n    'Return the box.'", True),
        ("def f():\n    'Box that holds.'", True),
        ("def f():\n    'The box that holds.'", False),
        ("def f():\n    'Whether it holds.'", False),
        ("def f():\n    'What holds.'", False),
        ("def f():\n    '`(B, N)` values.'", False),
        ("class A:\n    'The box that holds.'", True),
        ("class A:\n    'The same box.'", False),
        ("class A:\n    'By fixed points.'", False),
        ("class A:\n    @property\n    def f(self):\n        'Whether it holds.'", True),
        ("class A:\n    @property\n    def f(self):\n        'How many there are.'", False),
        ("'Whether it holds.'", False),
        ("'Grids of voxels.'", True),
    ],
)
def test_beginnings_are_told_apart(code, right):
    ((_, node, text),) = documented(ast.parse(code))
    assert (fault(node, text) == "") is right
