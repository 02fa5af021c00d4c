"""The command that tells how far work has come."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Json, say, terminal


def status(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a preparation, a run or a study.")],
    full: Annotated[bool, typer.Option("--all", help="List what is done, too.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what is done, running, failed and open in a folder."""
    from dataclasses import asdict

    from pullback.workflows.status import layout, status, summary

    lines = status(folder)
    table = layout(lines, full)
    if table.row_count and not as_json:
        terminal(as_json).print(table)
    say(as_json, [asdict(line) for line in lines], summary(folder, lines))
