"""Where chance comes from."""

import itertools

from pullback.numerics.random import generator


def test_every_seed_and_index_has_a_stream_of_its_own():
    """Also where they differ by zeros at the end, and where one's index continues another's."""
    indices = [index for n in range(4) for index in itertools.product((0, 1, 2), repeat=n)]
    seeds = {generator(seed, *index).initial_seed() for seed in (0, 1, 2) for index in indices}
    assert len(seeds) == 3 * len(indices) == 120
