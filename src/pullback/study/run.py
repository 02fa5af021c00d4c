"""A recipe becomes a folder: trained, resumed, and read back."""

import time
from pathlib import Path

from rich.console import Console
from torch import nn

from pullback.errors import InputError
from pullback.files.beside import beside
from pullback.files.manifest import manifest, peak_memory_mb, write_json
from pullback.study.recipe import Recipe, read_recipe, to_yaml
from pullback.training import Interrupted, load_weights, seeded, train


def run(recipe: Recipe, out: str | Path, resume: bool = False, console: Console | None = None) -> nn.Module:
    """Train by a recipe into the folder `out`; returns the network with the weights to use.

    The folder gets the resolved `recipe.yaml`, `run.json` (versions, seed, timings, peak memory), the logs and the
    weights that `train` writes. With `resume` a folder that the same recipe was interrupted in is gone on with.
    """
    out = Path(out)
    text = to_yaml(recipe)
    started = (out / "recipe.yaml").is_file()
    if started and not resume:
        raise InputError(f"{out}: there is a run already; go on with it by --resume, or name another folder with -o")
    if started and (out / "recipe.yaml").read_text() != text:
        raise InputError(f"{out}: this run has another recipe; resume it with the settings of its recipe.yaml")
    _ = recipe.data.train, recipe.data.validation  # complain about the data before anything is written
    network = build(recipe)
    with beside(out / "recipe.yaml") as temporary:
        temporary.write_text(text)
    begin, status = time.perf_counter(), "interrupted"
    try:
        network = train(
            network,
            recipe.data.train,
            recipe.supervision,
            recipe.training,
            recipe.data.validation,
            recipe.metrics,
            out,
            resume=resume and (out / "last.safetensors").is_file(),
            console=console,
        )
        status = "finished"
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: --resume -o {out}") from None
    finally:
        device = next(network.parameters()).device
        content = manifest() | {
            "status": status,
            "seed": recipe.training.seed,
            "seconds of this process": round(time.perf_counter() - begin, 2),
            "peak memory MB": round(peak_memory_mb(device), 1),
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        write_json(content, out / "run.json")
    return network


def build(recipe: Recipe) -> nn.Module:
    """The untrained network of a recipe, its weights drawn from the recipe's seed."""
    with seeded(recipe.training.seed):
        return recipe.network()


def load_run(folder: str | Path) -> tuple[Recipe, nn.Module]:
    """The recipe and the network, with its best weights, of a folder that `run` wrote."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run; `pullback train RECIPE -o {folder}` makes one")
    recipe = read_recipe(folder / "recipe.yaml")
    network = build(recipe)
    load_weights(network, folder / "best.safetensors")
    return recipe, network.eval()
