"""The command that makes templates of many scans."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli.options import (
    HOW,
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
    working,
)

AGES = "Templates by age"


def atlas(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the scans.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path("atlas"),
    ages: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table with a column subject and one of ages; default the folder's participants.tsv, where "
            "--at, --templates or --column ask for ages.",
            rich_help_panel=AGES,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of any number to go by; default age.", rich_help_panel=AGES),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Ages to make templates at; default evenly spaced.", rich_help_panel=AGES),
    ] = None,
    templates: Annotated[
        int | None, typer.Option(metavar="N", help="Number of templates; default 5.", rich_help_panel=AGES)
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(
            metavar="YEARS",
            help="Deviation of the weight by age; default half the distance between templates.",
            rich_help_panel=AGES,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Set data.images, data.labels, …; rounds, linear_rounds, change, centred; or a number of the method "
            "that registers. Repeatable.",
        ),
    ] = None,
    aligned: Annotated[
        bool,
        typer.Option("--aligned", help="Leave out rigid and affine stages: only shapes differ.", rich_help_panel=HOW),
    ] = False,
    preset: Preset = None,
    method: Method = None,
    network: Network = None,
    refine: Refine = None,
    trust: Trust = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make the template of many scans, or one for each age, by any way to align.

    A template is the mean image in the mean shape: the mean of all maps is the
    identity, so it does not matter who comes first. OUT gets template.nii.gz,
    or template_age_30.nii.gz, …; their labels, where --set data.labels=PATTERN
    names some; transforms/NAME.h5, template to scan; people.csv, templates.csv
    and rounds.csv; and growth.png, an animation through the ages. With the run
    of `train atlas` as --network, templates and maps are the network's own.

    The same command goes on where it was stopped.

    Exit code 3: it is done, but most scans do not look like their template.
    """
    from dataclasses import fields

    from pullback.errors import InputError, refuse
    from pullback.methods.group.template import TemplateBuilder
    from pullback.records.fingerprint import fingerprint
    from pullback.study.recipe import changed
    from pullback.training import device_of
    from pullback.workflows.atlas import ByAge, atlas_files, summary
    from pullback.workflows.atlas_making import ByBuilder, ByNetwork
    from pullback.workflows.how import How, register_of
    from pullback.workflows.scans import read_scans

    settings = settings_of(setting)
    of_data = {key: value for key, value in settings.items() if key.startswith("data.")}
    known = {each.name for each in fields(TemplateBuilder)}
    of_template = {key: value for key, value in settings.items() if key.split(".")[0] in known}
    other = {key: value for key, value in settings.items() if key not in {*of_data, *of_template}}
    where = device_of(device)
    learned = _conditional(network, trust)
    if learned is None:
        linear = None if aligned else register_of(How(preset=None if network else preset, transform="affine"))
        how = How(method, preset, network, refine, other, aligned=network is None)
        builder = changed(TemplateBuilder(linear, register_of(how, where, trust or ())), of_template)
        making: ByBuilder | ByNetwork = ByBuilder(builder, where)
    else:
        idle = {"--method": method, "--preset": preset, "--refine": refine, "--aligned": aligned or None}
        refuse({**idle, **{f"--set {key}": key for key in (*of_template, *other)}}, "is not of a network's templates")
        making = ByNetwork(learned, str(network))
    by = None
    if any(given is not None for given in (ages, column, at, templates, bandwidth)):
        try:
            asked = tuple(float(age) for age in at.split(",")) if at else ()
        except ValueError as error:
            raise InputError(f"--at {at}: numbers parted by commas expected, as in 20,40,60") from error
        by = ByAge(column or "age", asked, templates or 5, bandwidth)
    scans = read_scans(data, of_data, ages)
    said = {"method": method, "network": network and str(network)}
    said |= {"weights": fingerprint(network / "best.safetensors")} if network else {}
    with working(terminal(True), "atlas") as progress:

        def told(what: str) -> None:
            progress.update(progress.task_ids[0], description=what)

        content = atlas_files(scans, making, out, by, where, said, told)
    say(as_json, content, summary(content, out))
    if not content["quality"]["passed"]:
        raise typer.Exit(3)


def _conditional(network: Path | None, trust: list[str] | None):
    """Return the network of a run that has templates of its own; None of any other run."""
    from pullback.study.recipe import read_recipe
    from pullback.study.run import load_run

    if network is None or not (network / "recipe.yaml").is_file():
        return None
    if read_recipe(network / "recipe.yaml", trust or ()).aligns != "group":
        return None
    return load_run(network, trust or (), "group")[1]
