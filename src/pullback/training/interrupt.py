"""Interruption by Ctrl-C between two updates, or between other parts of a work."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(part: str = "update") -> Iterator[Callable[[], bool]]:
    """Yield a function that becomes true at the first Ctrl-C (or SIGTERM); the second one interrupts at once.

    `part` is the word for what is finished first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stop = threading.Event()

    def handle(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print(f"stopping after this {part}; once more stops at once", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
