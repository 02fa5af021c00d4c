"""The device to compute on."""

import torch

from pullback.errors import InputError


def device_of(name: str = "auto") -> torch.device:
    """Return the device called `name`; `"auto"` is the accelerator that torch sees, where it has float64, else the CPU.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None or found.type == "mps" else found
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r}: not to be had here ({str(error).splitlines()[0]})") from error
