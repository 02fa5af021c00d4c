"""Features of points from the shape of their neighbourhoods, by convolutions on graphs."""

from itertools import pairwise

from torch import Tensor, nn

from pullback.networks.network import Network
from pullback.numerics.graph import edge_features, nearest


class EdgeConvolution(nn.Module):
    """The maximum, for each point, of a small network's answers along its edges (Wang et al. 2019).

    It has three layers, as in Hansen & Heinrich 2021. Channels are normalised over all edges of the cloud, so that
    clouds do not influence each other.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        sizes = [2 * inputs, outputs, outputs, outputs]
        self.layers = nn.ModuleList(nn.Linear(*ends, bias=False) for ends in pairwise(sizes))

    def forward(self, values: Tensor, index: Tensor) -> Tensor:
        """Return features `(N, outputs)` of features `(N, inputs)` on the graph `(N, k)`."""
        x = edge_features(values, index)
        for layer in self.layers:
            x = nn.functional.leaky_relu(standardised(layer(x)), 0.01)
        return x.amax(1)


class GraphFeatures(Network):
    """A network that describes the neighbourhood of each point of a cloud.

    Hansen & Heinrich 2021, with their sizes: three edge convolutions of 32, 32 and 64 channels on one graph,
    then two linear layers of 64. A point is one of its own neighbours.

    Args:
        neighbours: of each point on the graph.
        widths: channels of the edge convolutions.
        scale: mm by which coordinates are divided, so that they are about 1.
    """

    def __init__(self, neighbours: int = 10, widths: tuple[int, ...] = (32, 32, 64), scale: float = 100.0) -> None:
        super().__init__()
        self.neighbours, self.scale = neighbours, scale
        sizes = [3, *widths]
        self.blocks = nn.ModuleList(EdgeConvolution(*ends) for ends in pairwise(sizes))
        self.mix = nn.Linear(widths[-1], widths[-1], bias=False)
        self.last = nn.Linear(widths[-1], widths[-1])

    def forward(self, points: Tensor, neighbours: int | None = None) -> Tensor:
        """Return features `(N, C)` of points `(N, 3)` in mm; the order of the points does not matter.

        A cloud that is denser than others may have more `neighbours` on its graph, so that it is seen as widely.
        """
        index = nearest(points, points, min(neighbours or self.neighbours, len(points)))[1]
        x = points / self.scale
        for block in self.blocks:
            x = block(x, index)
        return self.last(standardised(self.mix(x))).to(points)


def standardised(values: Tensor) -> Tensor:
    """Standardise each channel of the last axis to mean 0 and variance 1 over all other axes."""
    rows = values.reshape(-1, values.shape[-1])  # (N·k, C), or (N, C)
    return nn.functional.batch_norm(rows, None, None, training=True).view_as(values)  # of this cloud alone
