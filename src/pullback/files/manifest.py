"""What a result needs to be believed later: versions, machine, memory."""

import json
import os
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from pullback.files.write import beside

LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "lightning-fabric")


def manifest() -> dict[str, object]:
    """Versions, machine and moment of this process."""
    return {
        "pullback": version("pullback"),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "processor": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "command": sys.argv,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_mb(device: torch.device) -> float:
    """The most memory this process has held so far, in MB: of `device` where that is an accelerator, else resident."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def write_json(content: object, path: str | Path) -> None:
    with beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
