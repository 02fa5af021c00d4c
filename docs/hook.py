"""Pages of the site that stand elsewhere in the repository, or are made of what the package knows.

`mkdocs` calls the functions that begin with `on_`. Nothing is copied into the folder of the pages.
"""

import ast
import inspect
import pkgutil
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import pullback
import pullback.methods
from pullback.methods.method import methods
from pullback.workflows.catalogue import by_network, overview, page, reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = "src/pullback/pages"
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "design.md": "HOUSE.md",
    "glossary.md": "GLOSSARY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site by the file that holds their text."""
FRONT_DOOR = "reference/index.md"
LINK = re.compile(r"(\]\(|src=\")(?!https?:|#|mailto:)([^)#\"]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the page of each method below `methods` in the navigation."""
    pages = [{"All methods": "methods/index.md"}, *({name: f"methods/{name}.md"} for name in methods())]
    config.nav = [{title: pages if item == "methods" else item} for title, item in _items(config.nav)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and those whose text stands elsewhere."""
    for uri, text in made().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    return linked(markdown, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put drawings into the page itself, so that they follow its colours."""
    return re.sub(r'<p><img alt="[^"]*" src="(\w+\.svg)" ?/?></p>', _drawing, html)


def made() -> dict[str, str]:
    """Return the text of each page that is no file below `docs/`, by its place in the site."""
    texts = {uri: (ROOT / path).read_text(encoding="utf-8") for uri, path in ELSEWHERE.items()}
    texts["methods/index.md"] = table_of_methods()
    texts |= {f"methods/{name}.md": page_of(name) for name in methods()}
    return texts | {FRONT_DOOR: front_door((ROOT / "src/pullback/__init__.pyi").read_text(encoding="utf-8"))}


def linked(markdown: str, uri: str) -> str:
    """Return a page whose links to files of the repository are links to the pages that show them.

    Args:
        markdown: the page as its file has it.
        uri: its place in the site.
    """
    home = posixpath.dirname(_source(uri))
    pages = {source: page for page, source in ELSEWHERE.items()}

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(home, found[2]))
        if path == PAGES:
            path = "methods/index.md"
        elif path.startswith(f"{PAGES}/"):
            path = path.replace(PAGES, "methods", 1)
        elif path in pages or path.startswith("docs/"):
            path = pages.get(path, path.removeprefix("docs/"))
        else:
            return found[0]
        return found[1] + posixpath.relpath(path, posixpath.dirname(uri) or ".")

    return LINK.sub(link, markdown)


def table_of_methods() -> str:
    """Return the page that lists all methods."""
    lines = ["# Methods", "", "| method | what it is | aligns | learns | paper |", "|---|---|---|---|---|"]
    for row in overview():
        cells = (f"[{row.name}]({row.name}.md)", row.about, ", ".join(row.aligns), row.learns, row.paper)
        lines.append(f"| {' | '.join(cells)} |")
    told = "`pullback methods` prints this table, `pullback methods NAME` the page of one, `pullback cite NAME` BibTeX."
    return "\n".join([*lines, "", told, ""])


def page_of(name: str) -> str:
    """Return the page of a method: its text, and the numbers, recipes and papers that the package knows."""
    known = page(name)
    parts = [f"# {name}\n\n{known.method.about[0].upper()}{known.method.about[1:]}.", known.text.strip()]
    for command, numbers in known.settings.items():
        rows = "\n".join(f"| `{key}` | `{value}` |" for key, value in numbers.items())
        parts.append(_folded(f"Numbers of {command}", f"| `--set` | default |\n|---|---|\n{rows}"))
    if known.recipes:
        rows = "\n".join(f"| {' | '.join(row)} |" for row in by_network(known.recipes))
        parts.append(f"## Networks and data\n\n| method | `--network` | `--on` |\n|---|---|---|\n{rows}")
    if known.method.papers:
        cited = "\n".join(re.sub(r"(https:\S+)", r"<\1>", f"- {reference(paper)}") for paper in known.method.papers)
        entries = "\n\n".join(paper.bibtex() for paper in known.method.papers)
        parts.append(f"## Papers\n\n{cited}\n\n" + _folded("BibTeX", f"```bibtex\n{entries}\n```"))
    return "\n\n".join([*parts, _in_python(name), ""])


def front_door(stub: str) -> str:
    """Return the page of the names of `pullback`, each with its first sentence and a link to where it lives.

    Args:
        stub: text of `__init__.pyi`.
    """
    rooms: dict[str, list[str]] = {}
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            rows = rooms.setdefault(node.module.split(".")[0], [])
            for name in (each.name for each in node.names):
                rows.append(
                    f"| [`pb.{name}`][pullback.{node.module}.{name}] | {_first_sentence(getattr(pullback, name))} |"
                )
    tables = [f"## {room}\n\n| name | what it is |\n|---|---|\n" + "\n".join(rows) for room, rows in rooms.items()]
    about = "Names of `import pullback as pb`, by where they live. Each is loaded when it is first used."
    return "\n\n".join(["# Front door", about, *tables, ""])


def _first_sentence(thing: object) -> str:
    """Return the first sentence of a docstring, for a cell of a table; of a value that of its class."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z`])", text)[0].replace("|", "\\|")


def _in_python(name: str) -> str:
    """Return the reference of a method's module."""
    modules = pkgutil.walk_packages(pullback.methods.__path__, "pullback.methods.")
    module = next(each.name for each in modules if each.name.rpartition(".")[2] == name.replace("-", "_"))
    return f"## In Python\n\n::: {module}\n    options: {{heading_level: 3}}"


def _folded(title: str, text: str) -> str:
    """Return text that a click opens."""
    return f'??? note "{title}"\n\n' + "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def _items(nav: Any) -> Iterator[tuple[str, Any]]:
    return (pair for item in nav for pair in item.items())


def _source(uri: str) -> str:
    """Return the file of the repository that a page's text stands in."""
    if uri.startswith("methods/"):
        return uri.replace("methods", PAGES, 1)
    return ELSEWHERE.get(uri, f"docs/{uri}")


def _drawing(found: re.Match[str]) -> str:
    return f'<figure class="drawing">{(ROOT / "docs" / found[1]).read_text(encoding="utf-8")}</figure>'
