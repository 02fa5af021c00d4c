"""The commands. Heavy imports wait inside them, so that `--help` answers at once."""

import io
import json
import signal
import sys
import warnings
from typing import Annotated

import typer

from pullback.cli.learning import demo, evaluate, prepare, recipes, study, train
from pullback.cli.pairs import apply, convert, doctor, match, register

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
    """What stands before a command."""


for command in (demo, prepare, train, register, match, evaluate, apply, convert, doctor, study, recipes):
    app.command()(command)


def main() -> None:
    """The entry point: what a person can mend is one line on stderr and exit code 1; 130 after Ctrl-C and wherever a
    training was asked to stop, 143 after SIGTERM else; nothing is half-written after any."""
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
