"""A catalogue of methods: a table of all, the page of one, and its papers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table

from pullback.errors import InputError
from pullback.methods.method import Method, Paper, find_method, methods
from pullback.recipes import known
from pullback.recipes.lookup import Key, of_method
from pullback.study.recipe import as_data
from pullback.study.renamed import renamed

LEARNS = ("network", "supervision", "procedure", "training")
"""Parts of a recipe whose numbers a page lists."""
WIDE = 110
"""Columns from which a table has room for sentences."""
RECORDS = ("recipe.yaml", "run.json")
"""Files of a run that name its parts."""


@dataclass(frozen=True)
class MethodEntry:
    """A row of the table of all methods.

    Attributes:
        name: as commands take it.
        aligns: kinds of examples.
        learns: `"no"`, `"yes"`, or `"may"` where it works without, too.
        paper: the one it stands for, as a text cites it; "" where it has none.
        commands: that run it.
        about: one line.
    """

    name: str
    aligns: tuple[str, ...]
    learns: str
    paper: str
    commands: tuple[str, ...]
    about: str


@dataclass(frozen=True)
class Page:
    """The page of a method.

    Attributes:
        name: its name.
        method: its description.
        text: its page, Markdown.
        settings: its numbers by the key that `--set` takes, by the command that takes them.
        recipes: keys of its recipes.
    """

    name: str
    method: Method
    text: str
    settings: Mapping[str, Mapping[str, str]]
    recipes: Sequence[Key]

    def layout(self) -> RenderableType:
        """Return the page as a terminal shows it."""
        parts: list[RenderableType] = [Markdown(f"# {self.name}\n\n{_sentence(self.method.about)}\n\n{self.text}")]
        for command, numbers in self.settings.items():
            parts.append(Markdown(f"## Numbers of `{command}`"))
            parts.append(_table(("--set", "default"), list(numbers.items())))
        if self.recipes:
            parts.append(Markdown("## Networks and data"))
            parts.append(_table(("METHOD", "--network", "--on"), by_network(self.recipes)))
        cited = "\n".join(f"- {reference(paper)}" for paper in self.method.papers)
        parts.append(Markdown(f"## Papers\n\n{cited}\n\n`pullback cite {self.name}` prints BibTeX."))
        return Group(*(each for part in parts for each in (part, "")))

    def content(self) -> dict[str, Any]:
        """Return the page as data."""
        return {
            "name": self.name,
            "about": self.method.about,
            "aligns": list(self.method.aligns),
            "keys": list(self.method.keys),
            "commands": list(_commands(self.name, self.method)),
            "settings": self.settings,
            "recipes": [key._asdict() for key in self.recipes],
            "papers": [paper.key for paper in self.method.papers],
            "page": self.text,
        }


def overview() -> list[MethodEntry]:
    """Return a row for each method, in alphabetical order."""
    return [
        MethodEntry(
            name,
            method.aligns,
            "no" if not method.trained else "yes" if method.register is None else "may",
            method.papers[0].brief if method.papers else "",
            _commands(name, method),
            method.about,
        )
        for name, method in methods().items()
    ]


def layout(rows: Sequence[MethodEntry], width: int) -> Table:
    """Return the table of all methods as a terminal of so many columns shows it; a wide one tells what each is."""
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("method", "learns"):
        table.add_column(column, no_wrap=True)
    longest = max((len(command.removeprefix("pullback ")) for row in rows for command in row.commands), default=0)
    table.add_column("pullback …", no_wrap=True, min_width=longest)  # what is typed is not cut, rather whose it is
    for column in ("aligns", "what it is")[: 2 if width >= WIDE else 1]:
        table.add_column(column)
    for row in rows:
        commands = "\n".join(command.removeprefix("pullback ") for command in row.commands)
        about = (_sentence(row.about),) if width >= WIDE else ()
        table.add_row(f"[bold]{row.name}[/bold]\n{row.paper}", row.learns, commands, "\n".join(row.aligns), *about)
    return table


def page(name: str) -> Page:
    """Return the page of a method.

    Raises:
        InputError: there is no such method.
    """
    called, method = find_method(name)
    recipes = of_method(known(), name)
    settings = {}
    if method.register is not None:
        settings[_commands(called, method)[0]] = dict(_numbers(as_data(method.register)))
    if recipes:
        parts = as_data(known()[recipes[0]])
        settings[f"pullback train {name}"] = dict(_numbers({part: parts[part] for part in LEARNS}))
    return Page(called, method, text_of(called), settings, recipes)


def text_of(name: str) -> str:
    """Return the page of a method as it is written, Markdown; "" where there is none."""
    path = files("pullback") / "pages" / f"{name}.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def cited(what: str) -> list[Paper]:
    """Return the papers of a method, or of every method whose parts stand in a run, a registration or a recipe file.

    Args:
        what: name of a method, a folder that `train`, `register` or `match` wrote, or a recipe's `.yaml`.

    Raises:
        InputError: neither, or a file that cannot be read.
    """
    path = Path(what)
    record = next((path / name for name in RECORDS if (path / name).is_file()), path)
    if not record.is_file():
        if path.exists():
            raise InputError(f"{path}: no run; a folder of one has {' or '.join(RECORDS)}")
        return list(find_method(what)[1].papers)
    try:
        tree = (json.loads if record.suffix == ".json" else yaml.safe_load)(record.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{record}: cannot be read ({error})") from error
    names = [part.split(".")[3].replace("_", "-") for part in _parts(tree) if part.startswith("pullback.methods.")]
    papers = [paper for name in names if name in methods() for paper in methods()[name].papers]
    if not papers:
        raise InputError(f"{record}: names no part of a published method")
    return list({paper.key: paper for paper in papers}.values())


def _parts(tree: Any) -> Iterator[str]:
    """Return paths of all parts in a recipe file, by their names of today."""
    if isinstance(tree, dict):
        if next(iter(tree), None) in ("part", "partial", "name"):
            yield str(next(iter(renamed(tree).values())))
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _parts(item)


def _commands(name: str, method: Method) -> tuple[str, ...]:
    """Return command lines that run it."""
    commands = [*method.commands]
    if method.register is not None and not method.commands:
        command, usual = ("match", "graph-propagation") if method.aligns == ("points",) else ("register", "classical")
        commands.append(command if name == usual else f"{command} --method {name}")
    if "labels" in method.aligns:
        commands.append(f"segment --consensus {name}")
    if of_method(known(), name):
        commands.append(f"train {name}")
    return tuple(f"pullback {command}" for command in commands or [f"methods {name}"])


def _numbers(data: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a value that `as_data` made, by dotted keys, without those that are not set."""
    if isinstance(data, Mapping):
        members = {name: value for name, value in data.items() if name not in ("part", "partial")}
        if "name" in data:
            yield key, str(data["name"]).rpartition(".")[2]
            return
    elif isinstance(data, list) and any(isinstance(item, Mapping | list) for item in data):
        members = {str(n): item for n, item in enumerate(data)}
    else:
        if data is not None:
            yield key, json.dumps(data, ensure_ascii=False)
        return
    for name, value in members.items():
        yield from _numbers(value, f"{key}.{name}".lstrip("."))


def by_network(recipes: Sequence[Key]) -> list[tuple[str, str, str]]:
    """Return rows of method, network and their data."""
    rows: dict[tuple[str, str], list[str]] = {}
    for key in recipes:
        rows.setdefault((key.method, key.network), []).append(key.data)
    return [(*pair, ", ".join(data)) for pair, data in rows.items()]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    table.columns[0].no_wrap = True
    return table


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def reference(paper: Paper) -> str:
    link = f" https://doi.org/{paper.doi}" if paper.doi else ""
    return f"{paper.brief}: {paper.title}. {paper.venue}.{link}"
