"""Manifests: the versions, machine and memory that make a result credible later."""

import contextlib
import json
import os
import platform
import resource
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pullback.records.atomic import atomic_write

_STATUS = Path("/proc/self/status")
LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "SimpleITK", "lightning-fabric")


def manifest() -> dict[str, object]:
    """Return the versions, machine and time of this process."""
    return {
        "pullback": known_version("pullback"),
        "python": platform.python_version(),
        "libraries": {name: known_version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "processor": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "command": sys.argv,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def known_version(name: str) -> str:
    """Return the version of an installed package; "unknown" where its files are there and nothing tells it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has held, in MB, on `device` or, for a CPU, resident.

    It counts since the start of the process, or where the system can tell, since `forget_peak_memory`.
    """
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 1e6
    if _STATUS.is_file():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) * 1.024e-3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def forget_peak_memory(device: torch.device) -> None:
    """Measure the peak anew from here on, on accelerators and on Linux; elsewhere the peak since the start remains."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
    elif _STATUS.is_file():
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def write_json(content: object, path: str | Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
