"""Where chance comes from."""

import numpy as np
import torch


def generator(seed: int, *index: int) -> torch.Generator:
    """A CPU generator of its own for each `seed` and `index`, all of them unrelated.

    torch seeds its CPU generator with 32 bits of the number it is given, so the numbers are mixed first.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *index]).generate_state(1)[0]))
