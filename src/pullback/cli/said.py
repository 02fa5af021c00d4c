"""What all commands share: their options, and how they answer."""

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
Trust = Annotated[list[str] | None, typer.Option(metavar="PACKAGE", help="Your own package whose parts a run uses.")]
Device = Annotated[str, typer.Option(help="auto | cpu | …, as torch names it.")]


def say(as_json: bool, content: object, text: str) -> None:
    typer.echo(json.dumps(content, default=str) if as_json else text)


def terminal(as_json: bool):
    from rich.console import Console

    console = Console(stderr=as_json)
    return console if console.is_terminal else Console(stderr=as_json, width=120)


def working(console, what: str):
    """On a terminal: what is being done, and for how long."""
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(),
        "{task.description}",
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    progress.add_task(what, total=None)
    return progress
