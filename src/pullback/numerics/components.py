"""Connected components of a flat label map, and their centres."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def component_centres(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre and the area of each connected component of one label; 0 is background.

    Pixels are neighbours along the axes. Lines are cut into runs of one label, and runs that touch are joined, so that
    it takes little more than to look at each pixel once.

    Args:
        labels: `(X, Y)`, integers.

    Returns:
        `(N, 2)` float64, the mean pixel coordinates of each component, and `(N,)`, how many pixels it has; in the order
        of their first pixels.
    """
    values = labels.cpu().numpy()
    row, first, last = _runs(values)
    if not len(row):
        return torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    a, b = _touching(row, first, last, values[row, first])
    joined = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(row), len(row)))
    _, which = connected_components(joined, directed=False)
    count = which.max() + 1
    size = (last - first).astype(np.float64)
    area = np.bincount(which, size, count)
    rows = np.bincount(which, size * row, count) / area
    columns = np.bincount(which, size * (first + last - 1) / 2, count) / area
    _, begin = np.unique(which, return_index=True)
    order = np.argsort(begin)
    centres = torch.from_numpy(np.stack([rows, columns], 1)[order])
    return centres, torch.from_numpy(area[order].astype(np.int64))


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, first column and column after the last of each run of one label, in their order."""
    kept = np.flatnonzero(values.any(1))  # rows without labels cost nothing more
    inner = values[kept]
    edge = np.zeros((len(kept), inner.shape[1] + 1), dtype=inner.dtype)
    change = np.ones(edge.shape, dtype=bool)
    np.not_equal(inner[:, 1:], inner[:, :-1], out=change[:, 1:-1])
    at, column = np.divmod(np.flatnonzero(change), edge.shape[1])
    same = at[1:] == at[:-1]  # a run ends where the next begins
    at, first, last = at[:-1][same], column[:-1][same], column[1:][same]
    inside = inner[at, first] != 0
    return kept[at[inside]], first[inside], last[inside]


def _touching(row: np.ndarray, first: np.ndarray, last: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of runs of one label that lie below each other in two rows."""
    width = int(last.max()) + 1
    begin, end = row * width + first, row * width + last  # of each run, in one long line
    low = np.searchsorted(end, begin + width, side="right")  # the first run of the next row that ends behind its start
    high = np.searchsorted(begin, end + width, side="left")  # the first that begins behind its end
    count = np.maximum(high - low, 0)
    a = np.repeat(np.arange(len(row)), count)
    b = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    alike = label[a] == label[b]
    return a[alike], b[alike]
