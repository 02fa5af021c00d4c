"""HTML pages from templates. What is put into them is escaped."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pullback.records.atomic import atomic_write


def write_page(path: str | Path, template: str, **content: Any) -> None:
    """Write one file of HTML: `<template>.html.j2` of this package, filled with `content`."""
    page = _templates().get_template(f"{template}.html.j2").render(content)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # names of files may be no UTF-8


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("pullback.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
