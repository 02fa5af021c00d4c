"""The command that takes the motion out of a series."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import Json, Setting, say, settings_of, terminal

BY_TISSUES = "By a model of tissues"


def realign(
    given: Annotated[
        Path,
        typer.Option("-i", "--input", metavar="SERIES", help="4-D image, or folder of frames ordered by numbers."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("realigned"),
    at: Annotated[
        int | None, typer.Option("--at", metavar="FRAME", help="Frame that stays, from 0; default their mean place.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--interpolation",
            metavar="NAME",
            help="nearest, linear or cubic; default cubic, with tissues nearest, which keeps the noise as it is.",
        ),
    ] = None,
    tissues: Annotated[
        list[Path] | None,
        typer.Option(
            "--tissues",
            metavar="FILE",
            help="Probability map of a tissue, in the frames' world, or a 4-D file of all. Repeatable; default none.",
            rich_help_panel=BY_TISSUES,
        ),
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="rician, gaussian, or rician-mean: Gaussian about the mean of Rician noise.",
            rich_help_panel=BY_TISSUES,
        ),
    ] = "rician",
    asleep: Annotated[
        bool,
        typer.Option("--asleep", help="Expect twice the motion of people awake.", rich_help_panel=BY_TISSUES),
    ] = False,
    sodium: Annotated[
        bool,
        typer.Option(
            "--sodium",
            help="Expect the intensities of sodium in grey, white matter, fluid, bone, soft tissue, in this order.",
            rich_help_panel=BY_TISSUES,
        ),
    ] = False,
    setting: Setting = None,
    as_json: Json = False,
) -> None:
    """Lay the frames of a series on each other by rigid motions.

    OUT gets the corrected frames, resampled once, with the header as it was
    (corrected.nii.gz), their mean (mean.nii.gz), shifts, turns and framewise
    displacement (motion.csv), a page that draws them (motion.html), the
    transform of each frame (transforms/, for pullback apply -t), run.json.

    Frames are brought onto their mean by their correlation. Very noisy ones,
    such as of sodium, want --tissues: the motions, the tissues' intensities
    and the noise are found together, by the Rice distribution.

    Exit code 3: it is done, but frames agree less than before.
    """
    from rich.progress import track

    from pullback.workflows.realign import realign_files, realigning
    from pullback.workflows.realign_outputs import summary

    how = realigning(tissues or (), noise, asleep, sodium, settings_of(setting), mode, at)
    console = terminal(True)

    def shown(frames, what):
        return track(frames, what, console=console, transient=True, disable=not console.is_terminal)

    content = realign_files(given, how, out, shown)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)
