"""The command that searches for the numbers of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Change, Data, Json, SkipBad, Trust, say, settings_of, terminal
from pullback.cli.train import with_data


def tune(
    recipe: Annotated[
        str,
        typer.Argument(metavar="METHOD|FILE", help="Method, as `pullback methods` lists them, or a .py or .yaml file."),
    ],
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="A.B=LOW..HIGH",
            help="Number of the recipe and its range, by its logarithm from a decade on; or A.B=X,Y,…. Repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Trainings in all.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draws.")] = 0,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network to train; default the method's first.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Data set; default folder if --data is given, else phantom, or the method's first."
        ),
    ] = None,
    data: Data = None,
    setting: Change = None,
    skip_bad: SkipBad = False,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Search for numbers of a recipe: train with many, by validation alone.

    The first trial has the recipe's own numbers. OUT gets a run for each
    trial, trials.csv, and best.yaml, which `train` takes. Stopped, it goes on.
    """
    from dataclasses import replace

    from pullback.recipes import find
    from pullback.workflows.survey import learns_labels, surveyed
    from pullback.workflows.tune import range_of, summary, tune

    ranges = [range_of(text) for text in over]
    chosen = with_data(find(recipe, network, on, trust or (), read=data is not None), data, settings_of(setting))
    console = terminal(as_json)
    chosen = replace(chosen, data=surveyed(chosen.data, console, skip_bad, learns_labels(chosen)))
    content = tune(chosen, ranges, out, trials, seed, console)
    say(as_json, content, summary(content, out))
