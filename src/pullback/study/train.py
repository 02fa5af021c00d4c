"""Training of a network in hand, which leaves a run as a recipe does."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from rich.console import Console
from torch import nn

from pullback.data import Singles, Train, Validation
from pullback.example import Supervision
from pullback.networks import Network
from pullback.study.recipe import Recipe, from_yaml, to_yaml
from pullback.study.run import recorded
from pullback.training import Evaluation, Examples, PairEvaluation, Training
from pullback.training.train import train as train_loop

if TYPE_CHECKING:
    from lightning_fabric import Fabric

M = TypeVar("M", bound=nn.Module)


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
    """Train `network` by `supervision` on examples drawn from `examples`: `training.train`, whose arguments these are.

    What it leaves in `out` is a run, as of `run`, where all parts can be named: `examples` are the training split of a
    data set, and the network, and a supervision that has weights, are a `Network`. `load_run` and the commands read it.
    Of other parts `out` holds logs and weights alone.

    Returns:
        The network with its best weights where there was an evaluation and an `out`, else with its last, on the CPU and
        no longer in training mode.

    Raises:
        InputError: as of `training.train` and `run`.
        Interrupted: after Ctrl-C or SIGTERM, when the state has been saved, where there is an `out`.
        FloatingPointError: when the loss or the weights are no longer finite.
    """

    def learn(going_on: bool) -> M:
        return train_loop(
            network, examples, supervision, training, evaluation, out, going_on, fabric=fabric, console=console
        )

    alone = fabric is None or fabric.world_size == 1
    recipe = _recipe(network, examples, supervision, training, evaluation) if alone else None
    if out is None or recipe is None or (resume and not (Path(out) / "recipe.yaml").is_file()):
        return learn(resume)
    return cast(M, recorded(recipe, supervision, Path(out), resume, console, learn))


def _recipe(
    network: nn.Module, examples: Examples, supervision: Supervision, training: Training, evaluation: Any
) -> Recipe | None:
    """Return these parts as a recipe, which makes them again; None where one of them cannot be named."""
    data = examples.of if isinstance(examples, Train | Singles) else None
    learns = supervision.made if isinstance(supervision, Network) else supervision
    if data is None or not isinstance(network, Network) or isinstance(learns, nn.Module):
        return None
    pairs = evaluation if isinstance(evaluation, PairEvaluation) else PairEvaluation(data.validation)
    measured = _again(evaluation) if is_dataclass(evaluation) and not isinstance(evaluation, Validation) else None
    about = f"{type(network).__name__} by {getattr(learns, 'func', type(learns)).__name__} on {type(data).__name__}"
    try:
        recipe = Recipe(
            about,
            data,
            network.made,
            learns,
            training,
            tuple(pairs.metrics),
            evaluation=None if isinstance(evaluation, PairEvaluation) else measured,
        )
        from_yaml(to_yaml(recipe), about, trusted=("",))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None
    return recipe


def _again(evaluation: Any) -> partial[Any]:
    """Return what makes such an evaluation of any split, its first member."""
    kind: Callable[..., Any] = type(evaluation)
    return partial(kind, **{one.name: getattr(evaluation, one.name) for one in fields(evaluation)[1:]})
