"""Random numbers: generators by seed, and numbers by name."""

import hashlib

import numpy as np
import torch

from pullback.errors import InputError


def make_generator(seed: int, *index: int) -> torch.Generator:
    """Return a CPU generator for a `seed` and an `index`: different ones give unrelated streams.

    torch seeds its CPU generator with 32 bits of the number it is given, so the numbers are mixed first. The mixing
    ignores zeros at the end: without an index, or with zeros for one, the stream is the same.

    Raises:
        InputError: a seed below 0.
    """
    if seed < 0:
        raise InputError(f"seed: a whole number from 0, got {seed}")
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *index]).generate_state(1)[0]))


def drawn_number(seed: int, name: str) -> float:
    """Return a pseudorandom number in [0, 1) that depends on the seed and the name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:6], "big") / 2**48
