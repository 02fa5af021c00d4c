"""What a person can put right: wrong files, wrong settings. The command line shows these without a traceback."""

import difflib
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """Something given from outside is not usable. The message names it, says what is wrong, and what to do."""


class Interrupted(Exception):
    """The work was asked to stop and has saved its state."""


def refuse(given: Mapping[str, object], why: str) -> None:
    """Options that were given and would change nothing.

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
