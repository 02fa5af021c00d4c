"""What a person can put right: wrong files, wrong settings. The command line shows these without a traceback."""


class InputError(ValueError):
    """Something given from outside is not usable. The message names it, says what is wrong, and what to do."""


class Interrupted(Exception):
    """The work was asked to stop and has saved its state."""
