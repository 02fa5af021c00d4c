"""Cyclical self-training: a network learns from labels that it made itself the round before.

Bigalke, Hansen, Mok, Heinrich: Unsupervised 3D registration through optimization-guided cyclical self-training, MICCAI
2023. What it says of images and of point clouds alike; what a label is, and how a round learns, is theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Labels = TypeVar("Labels")


def rounds(
    make: Callable[[int], Network],
    label: Callable[[Network, int], Labels],
    learn: Callable[[Network, Labels, int], Network],
    count: int,
) -> Iterator[Network]:
    """The networks after each of `count` rounds.

    The first labels come from the features of a random network, `make(0)`; what learns begins with other weights,
    `make(1)`, lest it learns to reproduce them (section 2.2). Each later round goes on from the weights before.

    Args:
        make: a network of random weights, by number.
        label: makes the labels of all training pairs by a network, for the round of that number.
        learn: one round, from its beginning to its end: a warm restart. Gets the network, the labels and the number of
            the round, and answers with what has learned.
        count: of rounds.
    """
    labelling, network = make(0), make(1)
    for number in range(count):
        network = labelling = learn(network, label(labelling, number), number)  # no name keeps the labels
        yield network


def easy_first(differences: Sequence[float]) -> Tensor:
    """How often each pair is to be drawn, `(pairs,)`, sum 1: more often where the label changed less as it was refined.

    Pairs are ranked by `differences`, and the weights are a sigmoid of −5 (largest) to 5 (section 2.3.1).
    """
    order = torch.tensor(differences, dtype=torch.float64).argsort(descending=True, stable=True)
    weights = torch.empty(len(order), dtype=torch.float64)
    weights[order] = torch.linspace(-5, 5, len(order), dtype=torch.float64).sigmoid()
    return weights / weights.sum()
