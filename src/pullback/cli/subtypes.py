"""The command that asks, before a population is registered to one template, whether it is of one type."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    Device,
    Json,
    Method,
    Network,
    Preset,
    Refine,
    Trust,
    say,
    settings_of,
    terminal,
)

PEOPLE = "What is known of the people"


def subtypes(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the label maps, and of their images.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("subtypes"),
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Set data.images, data.labels, …; types.dims, types.most, types.neighbours, types.samples, "
            "types.seed; or a number of the method that registers. Repeatable.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Label maps alone, such as *_dseg.nii.gz, or of vertices on one sphere, .label.gii or .annot; default "
            "those of the data's images.",
        ),
    ] = None,
    centred: Annotated[
        bool, typer.Option("--centred", help="Lay the centroids of all labels on each other first.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Count voxels where nobody has a label, too.")
    ] = False,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to look: a volume, or labels of vertices; not 0.")
    ] = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="Register everybody, too, and tell what that removes.")
    ] = False,
    connections: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Tables of connections between regions, CSV with their names on top; default none.",
            rich_help_panel=PEOPLE,
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="Count connections of this region alone, with all others. Repeatable.",
            rich_help_panel=PEOPLE,
        ),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of age, sex, site, …, with a column subject; family and twin ask for heritability.",
            rich_help_panel=PEOPLE,
        ),
    ] = None,
    preset: Preset = None,
    method: Method = None,
    network: Network = None,
    refine: Refine = None,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tell whether a population is of one type or of several.

    Asked before it is registered to one template. OUT gets the type of each
    person (types.csv), what explains the spread (explained.csv), a figure
    (types.png), where each type differs (variability_1.nii.gz), and run.json
    with the verdict and the most typical person of each type.

    More than one type is claimed only if a bootstrap rejects a single one.
    """
    from rich.progress import track

    from pullback.errors import refuse
    from pullback.methods.group.onto_template import OntoTemplate
    from pullback.methods.group.structural_types import Types
    from pullback.numerics.device import device_of
    from pullback.study.recipe import changed
    from pullback.workflows.gathered import Asked
    from pullback.workflows.how import How, register_of
    from pullback.workflows.subtypes import SubtypesHow, subtypes_files, summary

    settings = settings_of(setting)
    of_data, of_types = (
        {key: value for key, value in settings.items() if key.startswith(kind)} for kind in ("data.", "types.")
    )
    other = {key: value for key, value in settings.items() if key not in {*of_data, *of_types}}
    types = changed(Types(), {key.removeprefix("types."): value for key, value in of_types.items()})
    onto = None
    if registered:
        linear = register_of(How(preset=None if network else preset, transform="affine"))
        how = How(method, preset, network, refine, other, aligned=network is None)
        onto = OntoTemplate(linear, register_of(how, device_of(device), trust or ()))
    else:
        idle = {"--preset": preset, "--method": method, "--network": network, "--refine": refine, "--trust": trust}
        refuse({**idle, **{f"--set {key}": key for key in other}}, "is of registration, which --registered asks for")
    console = terminal(True)
    asked = Asked(data, of_data, labels, connections, people, mask, rows or (), background, centred)

    def shown(items):
        items = list(items)
        return track(items, "working", console=console, transient=True, disable=not console.is_terminal)

    about = {"method": method, "network": network and str(network)} if registered else {}
    content = subtypes_files(asked, SubtypesHow(types, onto), out, about, shown, shown)
    say(as_json, content, summary(content, out))
