"""Interruption by Ctrl-C, or by a scheduler, between two updates, or between other parts of a work."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(part: str = "update") -> Iterator[Callable[[], bool]]:
    """Yield a function that becomes true at the first Ctrl-C; the second one interrupts at once.

    SIGTERM asks the same, and SIGUSR1, by which Slurm announces the end of a job (`--signal=USR1@120`).
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

    asking = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGUSR1")]  # Windows lacks the last
    before = {number: signal.signal(number, handle) for number in asking if number is not None}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
