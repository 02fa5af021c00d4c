"""Workers: processes that do one task after another, and are started again where one dies."""

import contextlib
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from pullback.errors import InputError

TRIES = 3
"""How often a task is begun whose process dies, before it is given up."""
Make = Callable[[], Callable[[Any], Any]]
"""Makes, in the worker's own process, what does a task: so what is slow to load is loaded once."""


class Worker(ABC):
    """A process that does one task after another."""

    @abstractmethod
    def __call__(self, task: Any) -> Any:
        """Return what the task answers with.

        Raises:
            InputError: as of the task, or its process died `TRIES` times.
        """

    @abstractmethod
    def close(self) -> None:
        """End the process, after the task that it is at."""


@dataclass(frozen=True)
class Local:
    """The engine of this machine: a worker is one of its processes."""

    def worker(self, make: Make) -> Worker:
        """Return a worker, whose process begins with its first task."""
        return _LocalWorker(make)


class _Died(Exception):
    """The process of a worker died with its task."""


class _Restarted(Worker):
    """A worker whose process is started again where it dies."""

    @abstractmethod
    def asked(self, task: Any) -> tuple[bool, Any]:
        """Return whether a task was done, and its answer or why not.

        Raises:
            _Died: the process did.
        """

    def __call__(self, task: Any) -> Any:
        for _ in range(TRIES):
            try:
                done, answer = self.asked(task)
            except _Died:
                continue
            if not done:
                raise InputError(answer)
            return answer
        raise InputError(f"its process died {TRIES} times; for want of memory? Fewer at once (-j), or a faster preset")


class _LocalWorker(_Restarted):
    def __init__(self, make: Make) -> None:
        self.make = make
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None

    def asked(self, task: Any) -> tuple[bool, Any]:
        pipe = self.pipe or self._begun()
        try:
            pipe.send(task)
            return pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise _Died from error

    def _begun(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of torch hold
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.make), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return self.pipe

    def close(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
        if self.process is not None:
            self.process.join()
        self.pipe = self.process = None


def _serve(pipe: Connection, make: Make) -> None:
    """Do tasks until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; this one is told by pipe
    doer = _Doer(make)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(doer.answer(pipe.recv()))


class _Doer:
    """The work within a process: what does tasks is made with the first of them."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.do: Callable[[Any], Any] | None = None

    def answer(self, task: Any) -> tuple[bool, Any]:
        """Return whether a task was done, and its answer or why not."""
        try:
            self.do = self.do or self.make()
            return True, self.do(task)
        except InputError as error:
            return False, str(error)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Ray:
    """The engine of a cluster under Ray: a worker is one of its actors. All machines see the same folders.

    Attributes:
        address: of the cluster, such as `"auto"` or `"ray://head:10001"`; None begins one of this machine alone.
        threads: of each worker, for which Ray keeps as many cores free.
        devices: accelerators of each worker, which may be a part of one.
    """

    address: str | None = None
    threads: int = 1
    devices: float = 0.0

    def worker(self, make: Make) -> Worker:
        """Return a worker, whose actor begins with its first task.

        Raises:
            InputError: Ray is not installed, or no cluster answers.
        """
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise InputError("--engine ray needs Ray: pip install 'pullback[cluster]'") from error
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, logging_level="ERROR", log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InputError(f"--address {self.address}: no cluster of Ray answers there ({error})") from error
        return _RayWorker(ray, make, self)


Engine = Local | Ray


class _RayWorker(_Restarted):
    def __init__(self, ray: Any, make: Make, engine: Ray) -> None:
        self.ray, self.make, self.engine = ray, make, engine
        self.actor: Any = None

    def asked(self, task: Any) -> tuple[bool, Any]:
        if self.actor is None:
            kind = self.ray.remote(num_cpus=self.engine.threads, num_gpus=self.engine.devices)(_Doer)
            self.actor = kind.remote(self.make)
        try:
            return self.ray.get(self.actor.answer.remote(task))
        except self.ray.exceptions.RayActorError as error:
            self.actor = None
            raise _Died from error

    def close(self) -> None:
        if self.actor is not None:
            self.ray.kill(self.actor)
        self.actor = None
