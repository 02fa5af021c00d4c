"""Options that say how to align, as on the command line, and the register that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from pullback.alignment import Register
from pullback.errors import InputError, refuse
from pullback.example import PointRegister
from pullback.methods.method import Method, find_method
from pullback.solvers import Refine, chain
from pullback.study.recipe import changed
from pullback.study.run import load_run
from pullback.workflows.choices import FITTED, STARTS, classical, learned, named, tiled

CLASSICAL, CLOUDS = "classical", "graph-propagation"
"""Methods by default: of images, and of points."""


@dataclass(frozen=True)
class How:
    """The options that say how to align two images or clouds; None is an option that was not given.

    Attributes:
        method: name of a method that needs no training; None is the classical one, or for points `CLOUDS`.
        preset: one of `choices.PRESETS`, of the linear stages too where another method deforms.
        network: folder of a trained run, in place of a method.
        refine: steps of descent after the network.
        settings: values of the method by dotted keys, as `study.recipe.changed` takes them.
        start: one of `choices.STARTS` or `choices.FITTED`, the file of a transform, or the folder of a trained run,
            whose answer it is.
        transform, energy, smoothness: of the classical method, as in `choices.classical`.
        aligned: no linear stage comes first.
        seed: of random rotations.
        tiles: edges in voxels of the tiles in which a network sees the images, as in `128` or `128,160,128`.
    """

    method: str | None = None
    preset: str | None = None
    network: str | Path | None = None
    refine: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    start: str = "auto"
    transform: str | None = None
    energy: str | None = None
    smoothness: float | None = None
    aligned: bool = False
    seed: int | None = None
    tiles: str | None = None

    @property
    def file(self) -> Path | None:
        """The file to start from, if `start` is no name."""
        path = Path(self.start)
        if self.start in (*STARTS, *FITTED) or self.run is not None:
            return None
        return path if path.suffix or len(path.parts) > 1 or path.exists() else None

    @property
    def run(self) -> Path | None:
        """The folder of the run to start from, if `start` is one."""
        return Path(self.start) if self.start not in (*STARTS, *FITTED) and Path(self.start).is_dir() else None

    @property
    def place(self) -> str:
        """The name of the start; "auto" where it is a file or a run, or comes from landmarks.

        Raises:
            InputError: it is none of these.
        """
        if self.file is not None or self.run is not None:
            return "auto"
        named(self.start, dict.fromkeys((*STARTS, *FITTED)), "--start")
        return "auto" if self.start in FITTED else self.start


def register_of(how: How, device: torch.device = torch.device("cpu"), trusted: Sequence[str] = ()) -> Register | Refine:
    """Return the register of two images that the options stand for.

    A method of pairs takes the place of the deformable stage: initialisation, rigid and affine stages run before it. A
    method of poses stands alone. A run as the start comes first, and takes the place of the initialisation.

    Args:
        device: where a network is put.
        trusted: packages whose parts a run may use.

    Raises:
        InputError: a name that is not known, a method that has to learn first, or options that do not go together.
    """
    chosen = _without_run(how, device, trusted)
    if how.run is None:
        return chosen
    start = load_run(how.run, trusted, "pair")[1]
    start.network.to(device)
    return replace(chain(start, cast(Refine, chosen)), called="start")


def _without_run(how: How, device: torch.device, trusted: Sequence[str]) -> Register | Refine:
    """Return the register that goes on from any start."""
    if how.network is not None:
        return _trained(how, device, trusted)
    if how.run is None:
        refuse({"--trust": trusted or None}, "is of a network's parts, and there is no --network")
    refuse({"--refine": how.refine}, "refines a network's answer, and there is no --network")
    refuse({"--tiles": how.tiles}, "is how a network sees the images, and there is no --network")
    name, method = _untrained(how.method or CLASSICAL, ("pair", "pose"), "register")
    value = method.register
    preset, seed = how.preset or "balanced", how.seed or 0
    if name == CLASSICAL:
        weight = 1.0 if how.smoothness is None else how.smoothness
        chosen = classical(preset, how.transform or "velocity", how.energy, weight, how.place, seed, how.aligned)
        return changed(chosen, how.settings)
    settings = {"--transform": how.transform, "--energy": how.energy, "--smoothness": how.smoothness}
    refuse(settings, f"is of the classical method; --set changes a number of {name}")
    if "pair" in method.aligns:
        before = classical(preset, start=how.place, seed=seed, aligned=how.aligned)
        return replace(before, deformable=changed(value, how.settings), as_given=method.as_given)
    start = None if how.start == "auto" else how.start
    refuse({"--preset": how.preset, "--aligned": how.aligned or None, "--start": start}, f"{name} searches all poses")
    return changed(value, ({} if how.seed is None else {"seed": str(how.seed)}) | dict(how.settings))


def clouds_of(how: How, trusted: Sequence[str] = ()) -> tuple[PointRegister, nn.Module | None]:
    """Return the register of two clouds that the options stand for, and the network whose features it uses.

    Raises:
        InputError: a name that is not known, a method of something else, or a run that does not align points.
    """
    if how.network is None:
        refuse({"--trust": trusted or None}, "is of a network's parts, and there is no --network")
    _, method = _untrained(how.method or CLOUDS, ("points",), "match")
    network = None if how.network is None else load_run(how.network, trusted, "points")[1]
    return changed(method.register, how.settings), network


def by_label(how: How) -> bool:
    """Return whether the register of two clouds takes label maps as the outlines of each label.

    Raises:
        InputError: a name that is not known, or a method of something else.
    """
    return _untrained(how.method or CLOUDS, ("points",), "match")[1].by_label


def _untrained(name: str, kinds: Sequence[str], command: str) -> tuple[str, Method]:
    """Return the name and description of a method that has a register and aligns one of `kinds`."""
    called, method = find_method(name)
    if not set(kinds) & set(method.aligns):
        raise InputError(
            f"--method {name}: aligns {' and '.join(method.aligns)}, and `pullback {command}` {' or '.join(kinds)}; "
            f"`pullback methods` says which command runs it"
        )
    if method.register is None:
        raise InputError(
            f"--method {name}: has to learn first; `pullback train {name} -o RUN`, and then --network RUN in its place"
        )
    return called, method


def _trained(how: How, device: torch.device, trusted: Sequence[str]) -> Register | Refine:
    idle = {
        "--method": how.method,
        "--preset": how.preset,
        "--transform": how.transform,
        "--aligned": how.aligned or None,
        "--set": how.settings or None,
    }
    refuse(idle, "not together with --network")
    if how.refine is None:
        refuse({"--energy": how.energy, "--smoothness": how.smoothness}, "with --network it takes --refine STEPS")
    trained = load_run(how.network or "", trusted, "pair")[1]
    trained.network.to(device)
    if how.tiles is not None:
        trained = tiled(trained, how.tiles)
    weight = 1.0 if how.smoothness is None else how.smoothness
    return learned(trained, how.place, how.refine, how.energy, weight)
