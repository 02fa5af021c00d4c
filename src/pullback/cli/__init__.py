"""The commands. Heavy imports wait inside them, so that `--help` answers at once."""

import io
import json
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from pullback.cli.atlas import atlas
from pullback.cli.carry import apply, convert, propagate, segment, simulate
from pullback.cli.cohort import cohort
from pullback.cli.judge import doctor, evaluate
from pullback.cli.locate import locate
from pullback.cli.match import match
from pullback.cli.papers import cite, demo, methods, study
from pullback.cli.realign import realign
from pullback.cli.register import register
from pullback.cli.stack import stack
from pullback.cli.status import status
from pullback.cli.subtypes import subtypes
from pullback.cli.train import prepare, train
from pullback.cli.tune import tune
from pullback.cli.uncertainty import dose, uncertainty

FULL = ("OutOfMemoryError", "MemoryError", "can't allocate memory")  # of an accelerator, of Python, of torch on a CPU
LESS = (
    "not enough memory; work on smaller images (`prepare --spacing`, `--preset fast`), with a smaller network, or on "
    "another --device"
)

app = typer.Typer(
    help="Align medical images in 2D and 3D, and teach networks to, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pullback {version('pullback')}")
        raise typer.Exit


@app.callback()
def pullback(
    version: Annotated[
        bool, typer.Option("--version", help="Tell the version, and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Read the options that stand before a command."""


GROUPS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Align": (register, match, atlas, stack, realign, locate),
    "Carry along": (apply, propagate, segment, convert, simulate),
    "Judge": (doctor, evaluate, uncertainty, dose, subtypes),
    "Learn": (prepare, train, tune),
    "Many runs, papers and methods": (cohort, status, demo, study, methods, cite),
}
for group, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)


def main() -> None:
    """Run the command line.

    The exit code is 1 after an error that a person can mend, told in one line on stderr; 130 after Ctrl-C and wherever
    a training was asked to stop; and 143 after SIGTERM elsewhere. None of them leaves a half-written file.
    """
    from pullback.errors import InputError, Interrupted

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks our arrows
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"pullback: careful: {message}", err=True)
    try:
        app()
        return
    except (InputError, FloatingPointError) as error:
        code, text = 1, str(error)
    except Interrupted as error:
        code, text = 130, str(error)
    except KeyboardInterrupt:
        code, text = 130, "interrupted"
    except (RuntimeError, MemoryError) as error:
        if not any(sign in f"{type(error).__name__} {error}" for sign in FULL):
            raise
        code, text = 1, LESS
    typer.echo(json.dumps({"error": text}) if "--json" in sys.argv else f"pullback: {text}", err=True)
    raise SystemExit(code)
