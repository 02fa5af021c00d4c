"""Runs: a recipe carried out in a folder, resumed, and read back."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from pullback.alignment import Registered
from pullback.data import Learn2Reg, PairDataset, Prealigned, layers
from pullback.data.pattern import some
from pullback.data.people import person_in
from pullback.errors import InputError, Interrupted
from pullback.example import Supervision
from pullback.records.atomic import atomic_write
from pullback.records.lock import locked
from pullback.records.manifest import manifest, peak_memory_mb, write_json
from pullback.space import Image
from pullback.study.recipe import Recipe, from_yaml, read_recipe, to_yaml
from pullback.study.resume import Naming, check_files, check_resumable, fingerprints, noted, parts
from pullback.study.trained import AtItsSpacing, Trained
from pullback.training import PairEvaluation, Task, device_of, load_weights, save_weights, seeded
from pullback.training.player import shares

COMMANDS = {
    "pair": "register --network",
    "points": "match --network",
    "slice": "locate --run",
}  # what takes a run, by what it aligns
FINISHED = "finished"
FILES = "files.json"  # the fingerprints of all files that are learned from or measured on
EARLIER = "earlier"  # beside the splits: from whom the runs that it goes on or learns from had learned


def run(recipe: Recipe, out: str | Path, resume: bool = False, console: Console | None = None) -> nn.Module:
    """Train by a recipe into the folder `out`, and return the network with the weights to use.

    The folder gets the resolved `recipe.yaml`, `splits.json` (who was trained, validated and will be tested on, and
    whom other runs that it names had learned from), `files.json` (fingerprints of their files), `run.json` (versions,
    seed, what it aligns, timings, peak memory), the logs and the weights that `train` writes. With `resume` a folder in
    which the same recipe was interrupted is continued; how long and how often to log may have changed, and how often to
    validate where no plateau counts it.

    Raises:
        InputError: images do not fit the network, or the folder holds another run or one that has done more updates, or
            another process is at work there.
    """
    supervision, out = _supervision(recipe), Path(out)

    def learn(going_on: bool) -> nn.Module:
        return recipe.procedure(
            Task(
                partial(build, recipe),
                recipe.data.train,
                supervision,
                recipe.training,
                recipe.evaluates(recipe.data.validation),
                out,
                going_on,
                console,
            )
        )

    return recorded(recipe, supervision, out, resume, console, learn)


def recorded(
    recipe: Recipe,
    supervision: Supervision,
    out: Path,
    resume: bool,
    console: Console | None,
    learn: Callable[[bool], nn.Module],
) -> nn.Module:
    """Return the network of `learn(going_on)`, and leave the record of a run by this recipe beside it, in `out`.

    `supervision` is that of the recipe, made.

    Raises:
        InputError: as of `run`.
    """
    text, splits = to_yaml(recipe), _splits(recipe)
    from_yaml(text, "this recipe", trusted=("",))  # what cannot be read back would be trained in vain
    shown, parameters = _images(recipe), _parameters(recipe, supervision)
    with locked(out):
        going_on, gone, prints = has_progress(out), "", fingerprints(recipe.data)
        if going_on:
            missing = check_resumable(recipe, splits, out, resume)
            check_files(noted(out / FILES), prints, out)
            gone = f", without {some(missing)}, with whom it began" if missing else ""
        with atomic_write(out / "recipe.yaml") as temporary:
            temporary.write_text(text)
        write_json(splits, out / "splits.json")
        write_json(prints, out / FILES)
        if console is not None:
            counts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
            console.print(f"subjects: {counts}{gone}", highlight=False)
        with _noted(recipe, parameters, shown, out):
            network = learn(going_on)
            if not (out / "best.safetensors").is_file():  # nothing was measured, so the last weights are to be used
                save_weights(network, out / "best.safetensors", {"update": recipe.training.updates})
            return network


def _parameters(recipe: Recipe, supervision: Supervision) -> int:
    """Return the number of the network's parameters, after a check that each player owns some."""
    network = build(recipe)
    learning = nn.ModuleDict({"network": network})
    if isinstance(supervision, nn.Module):
        learning["supervision"] = supervision
    shares(learning, recipe.training.players, recipe.training.frozen)
    return sum(p.numel() for p in network.parameters())


def _images(recipe: Recipe) -> dict[str, Any]:
    """Return what `run.json` says of the training images, by the first validation example; {} where it has none.

    Raises:
        InputError: the network takes others.
    """
    made, images = recipe.network.keywords, next(iter(recipe.data.validation)).images
    if not images:
        return {}
    grid, channels = images[0].grid, images[0].data.shape[1]
    if grid.ndim != made.get("ndim", grid.ndim):
        raise InputError(f"the images are {grid.ndim}-D and the network is not: set network.ndim={grid.ndim}")
    if "ndim" in made and channels != made.get("channels", 1):
        raise InputError(f"the images have {channels} channels, the network others: set network.channels={channels}")
    return {"spacing mm": [round(x, 6) for x in grid.spacing.tolist()], "shape": list(grid.shape)}


def has_progress(out: Path) -> bool:
    """Return whether a run, or a part of one, has left anything in the folder to continue from.

    Raises:
        InputError: other runs lie below.
    """
    left = any(out.rglob("*.safetensors"))
    if left and not (out / "recipe.yaml").is_file():
        raise InputError(f"{out}: holds other runs, or weights without a recipe.yaml; name another folder with -o")
    return left


def build(recipe: Recipe, number: int = 0) -> nn.Module:
    """Return the untrained network of a recipe, with weights drawn from its seed; others for each `number`."""
    with seeded(recipe.training.seed, *((3, number) if number else ())):
        return recipe.network()


def _supervision(recipe: Recipe) -> Supervision:
    """Return the supervision of a recipe; one with weights of its own is made from its partial, with its own draws."""
    if not isinstance(recipe.supervision, partial):
        return recipe.supervision
    with seeded(recipe.training.seed, 0):
        return recipe.supervision()


@dataclass(frozen=True)
class Run:
    """The network of a finished run as a register that a recipe can name: `SelfTraining(teacher=Run("runs/first"))`."""

    folder: str = ""

    def __call__(self, fixed: Image, moving: Image) -> Registered:
        with torch.no_grad():
            return self.network.to(fixed.data.device)(fixed, moving)

    @cached_property
    def network(self) -> nn.Module:
        """The network, with its best weights.

        Raises:
            InputError: no run is named, or as of `load_network`.
        """
        if not self.folder:
            raise InputError("no run is named to learn from; say which: --set supervision.teacher.folder=RUN")
        return load_network(self.folder)[1]


def load_network(folder: str | Path, trusted: Sequence[str] = ()) -> tuple[Recipe, nn.Module]:
    """Load the recipe of a folder that `run` wrote, and its network with the best weights, as it was trained.

    `trusted` as in `read_recipe`.

    Raises:
        InputError: no such run, or one whose recipe, weights or record cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; `pullback train RECIPE -o {folder}` makes one")
    status = noted(folder / "run.json").get("status", FINISHED)  # a damaged record is told, whoever needs it
    if status != FINISHED:
        warnings.warn(
            f"{folder}: this run is not finished ({status}); its best weights so far are taken. `pullback train … "
            f"--resume -o {folder}` goes on",
            stacklevel=2,
        )
    recipe = read_recipe(folder / "recipe.yaml", trusted)
    network = build(recipe)
    load_weights(network, folder / "best.safetensors")
    return recipe, network.eval()


def load_run(folder: str | Path, trusted: Sequence[str] = (), aligns: str | None = None) -> tuple[Recipe, Any]:
    """Load the recipe of a folder that `run` wrote, and its network.

    A run on pairs of images gives a register of any two, `Trained`; others give the network as it is.

    Args:
        trusted: as in `read_recipe`.
        aligns: what it must align, such as `"pair"`; None takes any.

    Raises:
        InputError: as of `load_network`, or a run that aligns something else.
    """
    recipe, network = load_network(folder, trusted)
    if aligns not in (None, recipe.aligns):
        raise InputError(
            f"{folder}: is a run that aligns {recipe.aligns}, not {aligns}; `pullback "
            f"{COMMANDS.get(recipe.aligns, 'evaluate')}` takes it"
        )
    return recipe, network if recipe.aligns != PairEvaluation.aligns else _of_pairs(folder, recipe, network)


def _of_pairs(folder: str | Path, recipe: Recipe, network: nn.Module) -> Trained:
    made, data = recipe.network.keywords, cast(PairDataset, recipe.data)
    *_, stored = known = [*layers(data)]
    return Trained(
        network,
        noted(Path(folder) / "run.json").get("spacing mm"),
        data.centred,
        made.get("ndim"),
        made.get("channels", 1 if "ndim" in made else None),
        stored.scale if isinstance(stored, Learn2Reg) else None,
        next((layer.register for layer in known if isinstance(layer, Prealigned)), None),
    )


def as_evaluated(folder: str | Path, recipe: Recipe, network: nn.Module, device: torch.device) -> Any:
    """Return the network of a run, on a device, as it is shown the examples of a test split, pre-aligned if need be.

    Pairs of images whose voxels are of another size than the run's are shown as `register --network` shows them.
    """
    network.to(device)
    if recipe.aligns != PairEvaluation.aligns:
        return network
    return AtItsSpacing(replace(_of_pairs(folder, recipe, network), centred=False, before=None))


def learned_from(folder: str | Path) -> set[str]:
    """Return the subjects that a run, or one that it names, was trained on or chosen by; empty without a record."""
    splits = noted(Path(folder) / "splits.json")
    return {name for split in ("train", "validation", EARLIER) for name in splits.get(split, ())}


def leaked(folder: str | Path, names: Iterable[str]) -> set[str]:
    """Return those of these subjects whom a run learned from, as persons: by another visit of theirs too."""
    known = {person_in(name) for name in learned_from(folder)}
    return {name for name in names if person_in(name) in known}


def _splits(recipe: Recipe) -> dict[str, list[str]]:
    """Return the subjects by split, and those of other runs that it names."""
    splits = {split: list(getattr(recipe.data, split).names) for split in ("train", "validation", "test")}
    named = [getattr(part, name) for part in parts(recipe) if isinstance(part, Naming) for name in part.elsewhere]
    folders = [run.folder if isinstance(run, Run) else run for run in named]
    earlier = {name for folder in folders if folder and isinstance(folder, str) for name in learned_from(folder)}
    return splits | ({EARLIER: sorted(earlier)} if earlier else {})


@contextmanager
def _noted(recipe: Recipe, parameters: int, images: dict[str, Any], out: Path) -> Iterator[None]:
    """Write `run.json`, however the run ends."""
    begin, device = time.perf_counter(), device_of()
    about: dict[str, Any] = (
        manifest()
        | images
        | {
            "aligns": recipe.aligns,
            "seed": recipe.training.seed,
            "device": str(device),
            "parameters": parameters,
        }
    )

    def note(status: str) -> None:
        spent = {"seconds of this process": round(time.perf_counter() - begin, 2)}
        write_json(
            about | spent | {"status": status, "peak memory MB": round(peak_memory_mb(device), 1)}, out / "run.json"
        )

    note("running")
    try:
        yield
    except Interrupted as error:
        note("interrupted")
        raise Interrupted(f"{error}; go on with: --resume -o {out}") from None
    except BaseException as error:
        note("interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed")
        raise
    note(FINISHED)
