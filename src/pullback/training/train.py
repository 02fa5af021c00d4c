"""The training loop of all networks and all supervisions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.optim import Optimizer

from pullback.data import Validation
from pullback.errors import InputError, Interrupted
from pullback.example import Supervision
from pullback.numerics.device import device_of
from pullback.numerics.random import make_generator
from pullback.records.lock import locked
from pullback.solvers import adam
from pullback.training.checkpoint import load_state, load_weights, refuse_ruined
from pullback.training.evaluation import Evaluation, PairEvaluation
from pullback.training.interrupt import asked_to_stop
from pullback.training.keep import Keeper, State
from pullback.training.measure import in_words, mean_of
from pullback.training.memory import keep_freed_memory
from pullback.training.player import NETWORK, Player, shares
from pullback.training.schedule import Plateau
from pullback.training.update import Hand, Step, update

if TYPE_CHECKING:
    from lightning_fabric import Fabric

M = TypeVar("M", bound=nn.Module)
PRECISIONS = ("32-true", "bf16-mixed")


class Examples(Protocol):
    """A source of training examples: a `Train` split, or labelled examples."""

    def draw(self, generator: torch.Generator) -> Any:
        """Draw an `Example`."""
        ...


@dataclass(frozen=True)
class Training:
    """The numbers of the training loop.

    Attributes:
        updates: steps of the optimiser on the network.
        batch: examples of each update, one after the other: their gradients are averaged.
        lr: its learning rate; the default is OFG's and VoxelMorph's.
        seed: of the initial weights (`seeded`) and of the examples that are drawn.
        optimiser: `optimiser(parameters, lr=lr)` makes it.
        augment: changes each example before it is learned from, such as `Synthesis()`; None leaves it.
        schedule: factor of the learning rate as a function of progress, such as `Cosine()`; None for a constant.
        plateau: when validation lowers the learning rates of all as well; None for never.
        clip: the longest gradient, of all the network's weights as one vector; longer ones are scaled; None for any.
        frozen: prefixes of the names of weights that do not learn: `("network.encoder.",)`.
        players: further optimisers, each of weights of its own; all other weights are the network's.
        choose_from: the share of the updates before which validation is logged and no checkpoint chosen.
        precision: of the network's convolutions, as Lightning Fabric names it: `"32-true"`, or `"bf16-mixed"` where the
            processor has bfloat16 arithmetic. Heads, fields, energies and weights are float32 in both.
        log_every, validate_every, save_every: in updates. Each also happens after the last update.
        deterministic: avoid kernels whose result depends on timing; torch warns of those that it has no other for.

    Raises:
        InputError: a number that is not above 0, no such share, or no such precision.
    """

    updates: int = 1000
    batch: int = 1
    lr: float = 1e-4
    seed: int = 0
    optimiser: Callable[..., Optimizer] = adam
    augment: Callable[[Any, torch.Generator], Any] | None = None
    schedule: Callable[[float], float] | None = None
    plateau: Plateau | None = None
    clip: float | None = None
    frozen: tuple[str, ...] = ()
    players: tuple[Player, ...] = ()
    choose_from: float = 0.0
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
        if not 0 <= self.choose_from <= 1:
            raise InputError(f"training.choose_from: a share of the updates, 0 to 1, got {self.choose_from}")
        if self.precision not in PRECISIONS:
            raise InputError(f"training.precision: {self.precision!r} is none of {', '.join(PRECISIONS)}")
        _ = self.first

    @property
    def first(self) -> Player:
        """The network as a player, with all weights that no other owns."""
        return Player(NETWORK, (), None, self.lr, self.optimiser, self.schedule, 1, self.clip)


def train(
    network: M,
    examples: Examples,
    supervision: Supervision,
    training: Training = Training(),
    evaluation: Evaluation | Validation | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    fabric: "Fabric | None" = None,
    console: Console | None = None,
) -> M:
    """Train `network` by `supervision` on examples drawn from `examples`, `training.batch` per update and process.

    A supervision that is a module has weights of its own, which learn along.

    The same seed gives the same examples in the same order, whatever the supervision and however often the run was
    interrupted. With `out` the folder gets `training.csv`, `validation.csv`, `tensorboard/`, `last.safetensors` (all
    that resuming needs) and, with `evaluation`, `best.safetensors`, chosen by its score; a validation split of pairs
    stands for its `PairEvaluation`.

    Returns:
        The network with its best weights where there was an evaluation and an `out`, else with its last, on the CPU and
        no longer in training mode.

    Raises:
        InputError: the folder holds another run, another process is at work there, or, with `resume`, there is no run
            that fits or one that has done more updates; or weights of `training.players` and `training.frozen` that do
            not exist, or are claimed twice.
        Interrupted: after Ctrl-C or SIGTERM, when the state has been saved, where there is an `out`.
        FloatingPointError: when the loss or the weights are no longer finite.
    """
    folder = None if out is None else Path(out)
    if isinstance(evaluation, Validation):
        evaluation = PairEvaluation(evaluation)
    if folder is not None and not resume and (folder / "last.safetensors").is_file():
        raise InputError(f"{folder}: there is a run already; go on with it (resume), or name another folder")
    fabric = fabric or fabric_of(device_of(), training.precision)
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    learning = Step(network.train(), supervision, fabric.autocast, fabric.device)
    step, hands = _hands(learning, training, fabric)
    optimisers = {hand.player.name: hand.optimiser for hand in hands}
    state = State()
    if resume:
        if folder is None:
            raise InputError("resume: say with `out` which run to go on with")
        state = State(**load_state(learning, optimisers, folder / "last.safetensors"))
        check_left(state.update, training, folder)
    kept_in, numbers = folder if fabric.is_global_zero else None, (training.plateau, training.choose_from)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with (
        nullcontext() if kept_in is None else locked(kept_in),
        Progress(*columns, console=console, disable=not fabric.is_global_zero) as bar,
        asked_to_stop() as stopping,
        _deterministic(training.deterministic),
        closing(Keeper(network, learning, optimisers, state, training.updates, *numbers, kept_in)) as keep,
    ):
        task = bar.add_task("training", total=training.updates, completed=state.update)
        while state.update < training.updates:
            if stopping():
                keep.state()
                raise Interrupted(f"stopped after update {state.update} of {training.updates}")
            values = _updated(fabric, step, hands, examples, training, state)
            state.update += 1
            bar.update(task, completed=state.update, description=f"loss {values['loss']:.4f}")
            if state.update == training.updates:
                refuse_ruined(learning)  # no later loss would tell
            if keep.due(training.log_every):
                keep.row("training", values)
            if evaluation is not None and keep.due(training.validate_every):
                means = mean_of(evaluation.rows(network, fabric.device))
                keep.validated(means, evaluation.score)
                bar.console.print(f"update {state.update}: {in_words(means)}", highlight=False)
            if keep.due(training.save_every):
                keep.state()
    fabric.barrier()
    if folder is not None and state.best is not None:
        load_weights(network, folder / "best.safetensors")
    return network.cpu().eval()


def fabric_of(device: torch.device, precision: str = "32-true") -> "Fabric":
    """Return one device as Lightning Fabric has it, in one of `PRECISIONS`."""
    from lightning_fabric import Fabric  # noqa: PLC0415 (a second to import, which those who align do not need)

    return Fabric(accelerator=device.type, devices=1, precision=precision)  # type: ignore[arg-type]


def _hands(learning: Step, training: Training, fabric: "Fabric") -> tuple[nn.Module, list[Hand]]:
    """Return all modules that learn as Fabric wraps them, and the players at work, the network first."""
    mine = shares(learning, training.players, training.frozen)
    if fabric.world_size > 1 and (training.players or training.frozen):
        raise InputError(f"players and frozen weights: in one process; there are {fabric.world_size}")
    named = learning.named_parameters()
    able = {weight for name, weight in named if weight.requires_grad and not name.startswith(training.frozen)}
    players = (training.first, *training.players)
    made = [player.optimiser(mine[player.name], lr=player.lr) for player in players]
    step, *optimisers = fabric.setup(learning, *made)
    return step, [
        Hand(player, [weight for weight in mine[player.name] if weight in able], optimiser)
        for player, optimiser in zip(players, optimisers, strict=True)
    ]


def _updated(
    fabric: "Fabric", step: nn.Module, hands: Sequence[Hand], examples: Examples, training: Training, state: State
) -> dict[str, float]:
    """Make the next update, on its own examples and random numbers, whatever was done before."""
    index = state.update * fabric.world_size + fabric.global_rank
    numbers = range(index * training.batch, (index + 1) * training.batch)
    batch = (_shown(examples, training, number, fabric.device) for number in numbers)
    progress, factor = state.update / training.updates, None if training.plateau is None else state.factor
    with seeded(training.seed, 1, index):  # dropout, so that a resumed run drops the same
        return update(fabric, step, hands, batch, training.batch, state.update, progress, factor)


def check_left(done: int, training: Training, folder: Path) -> None:
    """Refuse to continue a run that has done more updates than there are in all.

    Raises:
        InputError: there are fewer in all.
    """
    if done > training.updates:
        raise InputError(
            f"{folder}: this run has done {done} updates, more than training.updates={training.updates}; go on with "
            f"{done} or more, or name another folder"
        )


def draw(examples: Examples, seed: int, index: int) -> Any:
    """Draw the `index`-th example of a training, which depends on the seed and the index alone."""
    return examples.draw(make_generator(seed, index))


def _shown(examples: Examples, training: Training, number: int, device: torch.device) -> Any:
    """Draw the example of that number as it is learned from: on the device, and augmented."""
    example = draw(examples, training.seed, number).to(device)
    return example if training.augment is None else training.augment(example, make_generator(training.seed, 4, number))


@contextmanager
def seeded(seed: int, *index: int) -> Iterator[None]:
    """Make torch draw from `seed`, or from another stream for each `index`, within a `with`; outside nothing changes.

    It serves what takes no generator: the initial weights of a network, its dropout.
    """
    device = device_of()
    devices = [] if device.type == "cpu" else [torch.accelerator.current_device_index()]
    with torch.random.fork_rng(devices, device_type=device.type):
        torch.manual_seed(make_generator(seed, *index).initial_seed() if index else seed)
        yield


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
