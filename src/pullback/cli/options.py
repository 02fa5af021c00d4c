"""The options that several commands share, and how commands answer."""

import json
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of text.")]
Device = Annotated[str, typer.Option(help="Device of torch to compute on: auto, cpu, …", rich_help_panel="Computing")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE",
        help="Package of your own that a run may load parts from. Repeatable.",
        rich_help_panel="Computing",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")]
Space = Annotated[
    str | None,
    typer.Option(
        metavar="WORLD",
        help="World of points whose file does not say, such as ras, or px of a slide; default as the format has it.",
    ),
]

Spacing = Annotated[
    float | None,
    typer.Option(
        metavar="MM",
        help="Pixels of slides to look at, such as 0.004; default so many that there are 4 million.",
        rich_help_panel="Slides",
    ),
]
Stain = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What is seen of slides in colour: grey, haematoxylin, eosin or dab; default grey.",
        rich_help_panel="Slides",
    ),
]

HOW = "How to align"
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="fast, balanced or accurate; default balanced.", rich_help_panel=HOW),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Method that needs no training; default classical, of points graph-propagation.",
        rich_help_panel=HOW,
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Folder of a trained run, in place of a method.", rich_help_panel=HOW),
]
Refine = Annotated[
    int | None,
    typer.Option(metavar="STEPS", help="Steps of descent after the network; default none.", rich_help_panel=HOW),
]
Tiles = Annotated[
    str | None,
    typer.Option(
        metavar="VOXELS",
        help="Edges of overlapping tiles that the network sees one by one, 128 or 128,160,128; default the whole.",
        rich_help_panel=HOW,
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Set a number of the method, as `pullback methods NAME` lists them. Repeatable.",
        rich_help_panel=HOW,
    ),
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        "--init",
        "--initial",
        metavar="NAME|FILE|RUN",
        help="Start: auto, header, centres, masses, moments, global (search of all rotations), a transform file, or "
        "the folder of a trained run.",
        rich_help_panel=HOW,
    ),
]

Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the images; default as the recipe says.")]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Set a number of the recipe. Repeatable."),
]
OfData = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="data.B=C", help="Set data.images, .labels, .person, .test_split, … Repeatable."),
]


SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without images that cannot be used; they are named.")]


def say(as_json: bool, content: object, text: str) -> None:
    """Print a command's answer: one line of JSON, or the text."""
    typer.echo(json.dumps(content, default=str) if as_json else text)


def terminal(as_json: bool):
    """Return the console to tell progress on; where output is no terminal, 120 columns wide."""
    from rich.console import Console

    console = Console(stderr=as_json)
    return console if console.is_terminal else Console(stderr=as_json, width=120)


def working(console, what: str):
    """Return what shows on a terminal that something is being done, and for how long."""
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


def settings_of(setting: list[str] | None, option: str = "--set", form: str = "a.b=c") -> dict[str, str]:
    """Return values by key of options such as `--set a.b=c`."""
    from pullback.errors import InputError

    pairs = [item.partition("=") for item in setting or []]
    for key, equals, value in pairs:
        if not equals or not value:
            raise InputError(f"{option} {key}{equals}{value}: expected {form}")
    return {key: value for key, _, value in pairs}


def of_data(setting: list[str] | None) -> dict[str, str]:
    """Return values by key, all of the data."""
    from pullback.errors import refuse

    settings = settings_of(setting)
    refuse({f"--set {key}": key for key in settings if not key.startswith("data.")}, "only data.… is set so")
    return settings
