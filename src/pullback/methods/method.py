"""Descriptions of methods, in the constant `METHOD` of their modules, and finding methods by name."""

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import pullback.methods
from pullback.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Paper:
    """A publication.

    Attributes:
        key: for BibTeX, `xin2024ofg`.
        authors: as BibTeX has them: `"Xin, Yuelin and Chen, Yicheng"`.
        title: as printed.
        venue: journal, proceedings or archive.
        year: of publication.
        doi: without `https://doi.org/`; "" where there is none.
        kind: of the BibTeX entry: `"article"`, `"inproceedings"`, `"misc"`.
        volume: of the journal.
        pages: first and last, `"26--41"`, or the number of the article.
    """

    key: str
    authors: str
    title: str
    venue: str
    year: int
    doi: str = ""
    kind: str = "inproceedings"
    volume: str = ""
    pages: str = ""

    @property
    def brief(self) -> str:
        """The authors and year as a text cites them: "Xin et al. 2024"."""
        names = [author.split(",")[0] for author in self.authors.split(" and ")]
        first = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        return f"{first} {self.year}"

    def bibtex(self) -> str:
        """Return the entry for a bibliography."""
        where = {"article": "journal", "inproceedings": "booktitle"}.get(self.kind, "howpublished")
        members = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            where: self.venue,
            "volume": self.volume,
            "pages": self.pages,
            "year": str(self.year),
            "doi": self.doi,
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in members.items() if value)
        return f"@{self.kind}{{{self.key},\n{lines}\n}}"


@dataclass(frozen=True)
class Method:
    """A method of alignment, as a user chooses one. Its name is its module's, with hyphens for underscores.

    Attributes:
        about: one line: what it is for.
        aligns: kinds of examples: `"pair"`, `"points"`, `"pose"`, `"series"`, `"group"`, `"slice"`, `"labels"`.
        trained: whether it learns, by `pullback train`.
        papers: that describe it; the first is the one it stands for.
        keys: further names, each of a variant.
        register: what aligns without training, as a value whose parts `--set` changes; None where it must learn first.
            Of pairs it goes on from a start (`solvers.Refine`), of poses it needs none (`Register`), of points it takes
            a `PointPair` and the network whose features it uses, or None, and answers with a transform or a
            `PointAlignment`. Of a group it takes the group, and answers with a `GroupAlignment`.
        solves: problems of `pullback.testing`, by name, whose known answers it finds.
        as_given: whether, as a deformable stage, it sees images as they are, also behind their masks; else intensities
            are normalised, and filled there.
        by_label: whether, of points, it takes a label map as the outlines of each label; else as one of all.
        commands: command lines of its own, without `pullback`, where it is no register of pairs, poses or points.
    """

    about: str
    aligns: tuple[str, ...]
    trained: bool = False
    papers: tuple[Paper, ...] = ()
    keys: tuple[str, ...] = ()
    register: Any = None
    solves: tuple[str, ...] = ()
    as_given: bool = False
    by_label: bool = False
    commands: tuple[str, ...] = ()


def find_method(name: str) -> tuple[str, Method]:
    """Return the name and the description of a method that is called so, by its name or by one of its further keys.

    Raises:
        InputError: there is none.
    """
    for module in _modules():
        if _called(module) == name and (method := _described(module)):  # the others are not loaded
            return name, method
    known = methods()
    for one, method in known.items():
        if name == one or name in method.keys:
            return one, method
    every = [key for one, method in known.items() for key in (one, *method.keys)]
    raise InputError(f"no method {name!r}{did_you_mean(name, every)}; `pullback methods` lists them")


@cache
def methods() -> Mapping[str, Method]:
    """Return all methods by name, in alphabetical order: every module below `pullback.methods` with a `METHOD`."""
    found = {_called(module): method for module in _modules() if (method := _described(module))}
    return MappingProxyType(dict(sorted(found.items())))


def _modules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(pullback.methods.__path__, "pullback.methods.")]


def _called(module: str) -> str:
    return module.rsplit(".", 1)[1].replace("_", "-")


def _described(module: str) -> Method | None:
    method = vars(importlib.import_module(module)).get("METHOD")
    return method if isinstance(method, Method) else None


def class_called(name: str) -> type:
    """Return a public class that is defined in a module of a method, by its name.

    Raises:
        AttributeError: there is none, or several modules have one.
    """
    found = []
    for module in _modules():
        thing = vars(importlib.import_module(module)).get(name)
        if isinstance(thing, type) and thing.__module__ == module and "METHOD" in vars(sys.modules[module]):
            found.append(thing)
    if len(found) != 1:
        where = ", ".join(thing.__module__ for thing in found)
        raise AttributeError(f"pullback has no {name}" + (f" but in several modules: {where}" if found else ""))
    return found[0]
