"""Slices located in a volume: the pose of one or several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pullback.errors import InputError


def locate_in_volume(
    slices: Sequence[Path], volume: Path, out: Path, device: torch.device = torch.device("cpu")
) -> dict[str, Any]:
    """Find the pose of slices in a volume, and write the results into `out`.

    Raises:
        InputError: always: without a run, a volume is no stack of plates.
    """
    raise InputError(
        f"--in {volume}: is a volume, whose planes are compared with a slice by a run of slice-identification; say "
        f"--run RUN, or name a folder of plates"
    )


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `locate_in_volume` for a person."""
    return f"Look at {Path(out)}: {content}"
