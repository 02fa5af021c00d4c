"""One loop for every network and every supervision."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer

from pullback.alignment import Pair, Registered, Supervision
from pullback.data import Validation
from pullback.errors import InputError, Interrupted
from pullback.metrics import STANDARD, Metric
from pullback.numerics.random import generator
from pullback.solvers import adam
from pullback.space import Image
from pullback.training.checkpoint import load_state, load_weights, save_state, save_weights
from pullback.training.device import device_of
from pullback.training.interrupt import asked_to_stop
from pullback.training.log import Log
from pullback.training.measure import mean_of, measure, score
from pullback.training.memory import keep_freed_memory
from pullback.training.schedule import Plateau

Network = TypeVar("Network", bound=nn.Module)
PRECISIONS = ("32-true", "bf16-mixed")


class Drawn(Protocol):
    """Pairs to learn from: a `Train` split, or one whose pairs were labelled."""

    def draw(self, generator: torch.Generator) -> Pair:
        """One of them, by chance."""
        ...


@dataclass(frozen=True)
class Training:
    """The numbers of the loop.

    Attributes:
        updates: steps of the optimiser on the network.
        batch: pairs of each update, one after the other: their gradients are averaged.
        lr: its learning rate; the default is OFG's and VoxelMorph's.
        seed: of the initial weights (`seeded`) and of the pairs that are drawn.
        optimiser: `optimiser(parameters, lr=lr)` makes it.
        augment: what becomes of a pair before it is learned from, such as `Synthesis()`; None leaves it.
        schedule: factor of the learning rate as a function of progress, such as `Cosine()`; None for a constant.
        plateau: when validation lowers the learning rate as well; None for never.
        precision: of the network's convolutions, as Lightning Fabric names it: `"32-true"`, or `"bf16-mixed"` where the
            processor has bfloat16 arithmetic. Heads, fields, energies and weights are float32 in both.
        log_every, validate_every, save_every: in updates. Each also happens after the last update.
        deterministic: avoid kernels whose result depends on timing; of those that torch has no other for, it warns.

    Raises:
        InputError: a number that is not above 0, or no such precision.
    """

    updates: int = 1000
    batch: int = 1
    lr: float = 1e-4
    seed: int = 0
    optimiser: Callable[..., Optimizer] = adam
    augment: Callable[[Pair, torch.Generator], Pair] | None = None
    schedule: Callable[[float], float] | None = None
    plateau: Plateau | None = None
    precision: str = "32-true"
    log_every: int = 10
    validate_every: int = 250
    save_every: int = 50
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: a whole number of 63 bits from 0, got {self.seed}")
        counts = ("updates", "batch", "log_every", "validate_every", "save_every")
        wrong = {name: getattr(self, name) for name in (*counts, "lr") if not getattr(self, name) > 0}
        if wrong:
            raise InputError(f"training: numbers above 0 expected, got {wrong}")
        if self.precision not in PRECISIONS:
            raise InputError(f"training.precision: {self.precision!r} is none of {', '.join(PRECISIONS)}")


def train(
    network: Network,
    pairs: Drawn,
    supervision: Supervision,
    training: Training = Training(),
    validation: Validation | None = None,
    metrics: Sequence[Metric] = STANDARD,
    out: Path | str | None = None,
    resume: bool = False,
    fabric: Fabric | None = None,
    console: Console | None = None,
) -> Network:
    """Teach `network` by `supervision` on pairs drawn from `pairs`, `training.batch` per update and process.

    A supervision that is a module has weights of its own, which learn along.

    The same seed gives the same pairs in the same order, whatever the supervision and however often the run was
    interrupted. With `out` the folder gets `training.csv`, `validation.csv`, `tensorboard/`, `last.safetensors` (all
    that resuming needs) and, with `validation`, `best.safetensors`, chosen by the first metric that answers.

    Returns:
        the network with its best weights where there was a validation and an `out`, else with its last, on the CPU and
        no longer in training mode.

    Raises:
        InputError: the folder holds another run, or, with `resume`, none that fits or one that has done more updates.
        Interrupted: after Ctrl-C or SIGTERM, when the state has been saved, where there is an `out`.
        FloatingPointError: when the loss is no longer finite.
    """
    folder = None if out is None else Path(out)
    if folder is not None and not resume and (folder / "last.safetensors").is_file():
        raise InputError(f"{folder}: there is a run already; go on with it (resume), or name another folder")
    fabric = fabric or Fabric(accelerator=device_of().type, devices=1, precision=training.precision)  # type: ignore[arg-type]
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    learning = _Step(network.train(), supervision, fabric.autocast)
    optimiser = training.optimiser(learning.parameters(), lr=training.lr)
    step, optimiser = fabric.setup(learning, optimiser)
    state = _State()
    if resume:
        if folder is None:
            raise InputError("resume: say with `out` which run to go on with")
        state = _State(**load_state(learning, optimiser, folder / "last.safetensors"))
        check_left(state.update, training, folder)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        Progress(*columns, console=console, disable=not fabric.is_global_zero) as bar,
        asked_to_stop() as stopping,
        _deterministic(training.deterministic),
        closing(_Keeper(learning, optimiser, state, training, folder if fabric.is_global_zero else None)) as keep,
    ):
        task = bar.add_task("training", total=training.updates, completed=state.update)
        while state.update < training.updates:
            if stopping():
                keep.state()
                raise Interrupted(f"stopped after update {state.update} of {training.updates}")
            index = state.update * fabric.world_size + fabric.global_rank
            numbers = range(index * training.batch, (index + 1) * training.batch)
            batch = (_shown(pairs, training, number, fabric.device) for number in numbers)
            with seeded(training.seed, 1, index):  # dropout, so that a resumed run drops the same
                values = _update(fabric, step, optimiser, batch, training, state)
            state.update += 1
            bar.update(task, completed=state.update, description=f"loss {values['loss']:.4f}")
            if keep.due(training.log_every):
                keep.row("training", values)
            if validation is not None and keep.due(training.validate_every):
                means = mean_of(measure(network, validation, metrics, fabric.device))
                keep.validated(means, score(means, metrics))
                shown = ", ".join(f"{k} {v:.4g}" for k, v in means.items() if "/" not in k)
                bar.console.print(f"update {state.update}: {shown}", highlight=False)
            if keep.due(training.save_every):
                keep.state()
    fabric.barrier()
    if folder is not None and state.best is not None:
        load_weights(network, folder / "best.safetensors")
    return network.cpu().eval()


def check_left(done: int, training: Training, folder: Path) -> None:
    """That a run can be gone on with after `done` updates.

    Raises:
        InputError: there are fewer in all.
    """
    if done > training.updates:
        raise InputError(
            f"{folder}: this run has done {done} updates, more than training.updates={training.updates}; go on with "
            f"{done} or more, or name another folder"
        )


def draw(pairs: Drawn, seed: int, index: int) -> Pair:
    """The `index`-th pair of a training: a function of the seed and the index alone."""
    return pairs.draw(generator(seed, index))


def _shown(pairs: Drawn, training: Training, number: int, device: torch.device) -> Pair:
    """The pair of that number as it is learned from: on the device, and augmented."""
    pair = draw(pairs, training.seed, number).to(device)
    return pair if training.augment is None else training.augment(pair, generator(training.seed, 4, number))


@contextmanager
def seeded(seed: int, *index: int) -> Iterator[None]:
    """Within it torch draws from `seed`, or from a stream of its own for each `index`; outside nothing has changed.

    For what draws from nowhere else: the initial weights of a network, its dropout.
    """
    device = device_of()
    devices = [] if device.type == "cpu" else [torch.accelerator.current_device_index()]
    with torch.random.fork_rng(devices, device_type=device.type):
        torch.manual_seed(generator(seed, *index).initial_seed() if index else seed)
        yield


class _Step(nn.Module):
    """Network and supervision as one forward, which is what Fabric wraps, on one device or on many.

    The pair comes in a closure because Fabric takes apart the dataclasses it finds among the arguments. Reduced
    precision, where asked for, is the network's alone.
    """

    def __init__(
        self, network: nn.Module, supervision: Supervision, autocast: Callable[[], AbstractContextManager]
    ) -> None:
        super().__init__()
        self.network = network
        self.supervision = supervision
        self.autocast = autocast

    def forward(self, pair: Callable[[], Pair], progress: float) -> dict[str, Tensor]:
        def register(fixed: Image, moving: Image) -> Registered:
            with self.autocast():
                return self.network(fixed, moving)

        known = pair()
        with torch.autocast(known.fixed.data.device.type, enabled=False):
            return self.supervision(register, known, progress)


def _update(
    fabric: Fabric, step: nn.Module, optimiser: Optimizer, pairs: Iterable[Pair], training: Training, state: "_State"
) -> dict[str, float]:
    """One step of the optimiser; the loss and its terms, means over the pairs."""
    progress = state.update / training.updates
    if training.schedule is not None or training.plateau is not None:
        scheduled = 1.0 if training.schedule is None else training.schedule(progress)
        for group in optimiser.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * scheduled * state.factor
    optimiser.zero_grad()
    rows: list[dict[str, float | str]] = []
    for pair in pairs:
        terms = step(lambda pair=pair: pair, progress)
        loss = torch.stack([value for name, value in terms.items() if "/" not in name]).sum() / training.batch
        values = {"loss": training.batch * loss.item(), **{name: value.item() for name, value in terms.items()}}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss is no longer finite on {pair.name or 'a pair'}: {values}; lower training.lr, now "
                f"{training.lr}"
            )
        fabric.backward(loss)
        rows.append({**values})
    optimiser.step()
    return mean_of(rows)


@dataclass
class _State:
    update: int = 0
    best: float | None = None
    factor: float = 1.0  # of the learning rate
    waited: int = 0  # validations since the best, or since the factor fell


@dataclass
class _Keeper:
    """What a run leaves on disk; with `out` None (no folder, or not the first process) nothing."""

    learning: "_Step"
    optimiser: Optimizer
    now: _State
    training: Training
    out: Path | None
    log: Log | None = field(init=False)

    def __post_init__(self) -> None:
        self.log = None if self.out is None else Log(self.out, self.now.update)

    def due(self, every: int) -> bool:
        return self.now.update % every == 0 or self.now.update == self.training.updates

    def row(self, name: str, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.row(name, self.now.update, values)

    def state(self) -> None:
        if self.out is not None:
            save_state(self.learning, self.optimiser, self.out / "last.safetensors", vars(self.now))

    def validated(self, means: dict[str, float], score: float) -> None:
        self.row("validation", means)
        if self.now.best is None or score > self.now.best:
            self.now.best, self.now.waited = score, 0
            if self.out is not None:
                save_weights(self.learning.network, self.out / "best.safetensors", {"update": self.now.update, **means})
            return
        self.now.waited += 1
        plateau = self.training.plateau
        if plateau is not None and self.now.waited >= plateau.patience:
            self.now.factor, self.now.waited = self.now.factor * plateau.factor, 0

    def close(self) -> None:
        if self.log is not None:
            self.log.close()


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warns or not before)  # whoever wants errors has them
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
