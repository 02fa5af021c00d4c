"""A recipe becomes a folder: trained, resumed, and read back."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import yaml
from rich.console import Console
from torch import nn

from pullback.alignment import Registered, Supervision
from pullback.errors import InputError, Interrupted
from pullback.files.beside import beside
from pullback.files.lock import alone_in
from pullback.files.manifest import manifest, peak_memory_mb, write_json
from pullback.space import Image
from pullback.study.recipe import Recipe, as_data, from_yaml, read_recipe, to_yaml
from pullback.study.trained import Trained
from pullback.training import Once, Task, device_of, load_tensors, load_weights, seeded
from pullback.training.train import check_left

OFTEN = ("log_every", "save_every")  # what may change when a run is gone on with
EARLIER = "earlier"  # beside the splits: from whom the runs that it goes on or learns from had learned


def run(recipe: Recipe, out: str | Path, resume: bool = False, console: Console | None = None) -> nn.Module:
    """Train by a recipe into the folder `out`; returns the network with the weights to use.

    The folder gets the resolved `recipe.yaml`, `splits.json` (who was trained, validated and will be tested on, and
    whom other runs that it names had learned from), `run.json` (versions, seed, timings, peak memory), the logs and the
    weights that `train` writes. With `resume` a folder in which the same recipe was interrupted is gone on with; how
    long and how often to log may have changed, and how often to validate where no plateau counts it.

    Raises:
        InputError: images do not fit the network, or the folder holds another run or one that has done more updates, or
            another process is at work there.
    """
    out = Path(out)
    text, splits = to_yaml(recipe), _splits(recipe)
    from_yaml(text, "this recipe", trusted=("",))  # what cannot be read back would be trained in vain
    supervision = _supervision(recipe)
    parameters = sum(p.numel() for p in build(recipe).parameters())
    seen = next(iter(recipe.data.validation)).fixed
    grid = seen.grid
    made = recipe.network.keywords
    if grid.ndim != made.get("ndim", grid.ndim):
        raise InputError(f"the images are {grid.ndim}-D and the network is not: set network.ndim={grid.ndim}")
    channels = seen.data.shape[1]
    if "ndim" in made and channels != made.get("channels", 1):
        raise InputError(f"the images have {channels} channels, the network others: set network.channels={channels}")
    with alone_in(out):
        going_on = begun(out)
        if going_on:
            _check_resumable(recipe, splits, out, resume)
        with beside(out / "recipe.yaml") as temporary:
            temporary.write_text(text)
        write_json(splits, out / "splits.json")
        if console is not None:
            counts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
            console.print(f"subjects: {counts}", highlight=False)
        about = {"spacing mm": [round(x, 6) for x in grid.spacing.tolist()], "shape": list(grid.shape)}
        with _recorded(recipe, parameters, about, out):
            return recipe.procedure(
                Task(
                    partial(build, recipe),
                    recipe.data,
                    supervision,
                    recipe.training,
                    recipe.metrics,
                    out,
                    going_on,
                    console,
                )
            )


def begun(out: Path) -> bool:
    """Whether a run, or a part of one, has left anything there to go on from.

    Raises:
        InputError: other runs lie below.
    """
    left = any(out.rglob("*.safetensors"))
    if left and not (out / "recipe.yaml").is_file():
        raise InputError(f"{out}: holds other runs, or weights without a recipe.yaml; name another folder with -o")
    return left


def build(recipe: Recipe, number: int = 0) -> nn.Module:
    """The untrained network of a recipe, its weights drawn from the recipe's seed; others for each `number`."""
    with seeded(recipe.training.seed, *((3, number) if number else ())):
        return recipe.network()


def _supervision(recipe: Recipe) -> Supervision:
    """That of a recipe; one that has weights of its own is made from its partial, and draws them apart."""
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
            return self._network.to(fixed.data.device)(fixed, moving)

    @cached_property
    def _network(self) -> nn.Module:
        if not self.folder:
            raise InputError("no run is named to learn from; say which: --set supervision.teacher.folder=RUN")
        return load_run(self.folder)[1].network


def load_run(folder: str | Path, trusted: Sequence[str] = ()) -> tuple[Recipe, Trained]:
    """The recipe of a folder that `run` wrote, and its network, with the best weights, as a register of any two images.

    `trusted` as in `read_recipe`.

    Raises:
        InputError: no such run, or one whose recipe or weights cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; `pullback train RECIPE -o {folder}` makes one")
    recipe = read_recipe(folder / "recipe.yaml", trusted)
    network = build(recipe)
    load_weights(network, folder / "best.safetensors")
    noted = _json(folder / "run.json")
    made = recipe.network.keywords
    return recipe, Trained(
        network.eval(),
        noted.get("spacing mm"),
        recipe.data.centred,
        made.get("ndim"),
        made.get("channels", 1 if "ndim" in made else None),
    )


def learned_from(folder: str | Path) -> set[str]:
    """The subjects that a run, or one that it names, was trained on or chosen by; empty where it kept no record."""
    splits = _json(Path(folder) / "splits.json")
    return {name for split in ("train", "validation", EARLIER) for name in splits.get(split, ())}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); the file is damaged: delete it, or train anew") from error


def _splits(recipe: Recipe) -> dict[str, list[str]]:
    """Subjects by split, and those of other runs that it names."""
    splits = {split: list(getattr(recipe.data, split).names) for split in ("train", "validation", "test")}
    named = [getattr(part, name) for part in _parts(recipe) if isinstance(part, Naming) for name in part.elsewhere]
    folders = [run.folder if isinstance(run, Run) else run for run in named]
    earlier = {name for folder in folders if folder and isinstance(folder, str) for name in learned_from(folder)}
    return splits | ({EARLIER: sorted(earlier)} if earlier else {})


@runtime_checkable
class Naming(Protocol):
    """A part that says which of its members name other runs."""

    elsewhere: tuple[str, ...]


@runtime_checkable
class Paced(Protocol):
    """A part that says whether it changes with progress."""

    paced: bool


def _parts(thing: Any) -> Iterator[Any]:
    """It, and all that it is made of, at any depth."""
    yield thing
    if isinstance(thing, partial):
        thing = (*thing.args, *thing.keywords.values())
    elif is_dataclass(thing) and not isinstance(thing, type):
        thing = tuple(getattr(thing, field.name) for field in fields(thing))
    for part in thing if isinstance(thing, tuple) else ():
        yield from _parts(part)


def the_same(named: Recipe, begun: Recipe, out: Path) -> Recipe:
    """The recipe of a run that is gone on with, after a look at the one that was asked for.

    Raises:
        InputError: that is another.
    """

    def kinds(recipe: Recipe) -> set[str]:
        parts = (recipe.network, recipe.supervision, recipe.procedure)
        return {(part.func if isinstance(part, partial) else type(part)).__name__ for part in parts}

    if named.about != begun.about or (not named.about and kinds(named) != kinds(begun)):
        raise InputError(
            f"{out}: is a run of {', '.join(sorted(kinds(begun)))} ({begun.about}), not of the recipe that was named "
            f"({named.about}); go on with `train {out / 'recipe.yaml'} --resume -o {out}`, or name another folder"
        )
    return begun


def _check_resumable(recipe: Recipe, splits: dict[str, list[str]], out: Path, resume: bool) -> None:
    if not resume:
        raise InputError(f"{out}: there is a run already; go on with it by --resume, or name another folder with -o")
    paced = recipe.training.schedule is not None or any(p.paced for p in _parts(recipe) if isinstance(p, Paced))
    whole = paced or not isinstance(recipe.procedure, Once)  # what was done depends on how much there is to do
    counted = recipe.training.plateau is not None
    free = (*OFTEN, *(() if whole else ("updates",)), *(() if counted else ("validate_every",)))
    before, now = ((out / "recipe.yaml").read_text(), to_yaml(recipe))
    if _fixed(before, recipe, free) != _fixed(now, recipe, free):
        raise InputError(f"{out}: this run has another recipe; resume it with the settings of its recipe.yaml")
    if _json(out / "splits.json") != splits:
        raise InputError(f"{out}: the data has other subjects than when this run began (see its splits.json)")
    if (out / "last.safetensors").is_file():
        check_left(load_tensors(out / "last.safetensors")[1]["update"], recipe.training, out)


def _fixed(text: str, recipe: Recipe, free: Sequence[str]) -> Any:
    """What may not change of a recipe's text, whose parts are not looked up: all but its words, the `free` numbers of
    training, and where images and other runs are."""
    idle = {as_data(part)["part"]: part.elsewhere for part in _parts(recipe) if isinstance(part, Naming)}
    idle |= {as_data(recipe)["part"]: ("about",), as_data(recipe.training)["part"]: free}
    idle |= {as_data(recipe.data)["part"]: ("root",)}

    def kept(tree: Any) -> Any:
        if isinstance(tree, list):
            return [kept(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        return {k: kept(v) for k, v in tree.items() if k not in idle.get(str(tree.get("part")), ())}

    return kept(yaml.safe_load(text))


@contextmanager
def _recorded(recipe: Recipe, parameters: int, images: dict[str, Any], out: Path) -> Iterator[None]:
    """Writes `run.json`, however it ends."""
    begin, device = time.perf_counter(), device_of()
    about: dict[str, Any] = (
        manifest()
        | images
        | {
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
    note("finished")
