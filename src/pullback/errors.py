"""Errors that a person can mend: wrong files, wrong settings. The command line shows these without a traceback."""

import difflib
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """An error in what was given from outside. The message names it, says what is wrong, and what to do."""


class Interrupted(Exception):
    """A request to stop, raised when the work has saved its state."""


def refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse options that were given and would change nothing.

    Raises:
        InputError: there is one.
    """
    idle = [option for option, value in given.items() if value is not None]
    if idle:
        raise InputError(f"{', '.join(idle)}: {why}; leave it out")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known word nearest to `word`, if any is near."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
