"""Convolutions on a CPU, where torch's own choice is slow, or wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

THIN = 2  # voxels along an axis of the answer, up to which oneDNN gets bfloat16 wrong
SMALL = 20480  # batch × channels × the first two axes, up to which torch leaves oneDNN (ATen/native/Convolution.cpp)


def convolve(layer: nn.Module, values: Tensor) -> Tensor:
    """Return `layer(values)` in the layout of the values, quickly also where torch would take its slow path.

    For one small float32 volume and stride 1, torch on the CPU leaves oneDNN for a convolution of its own,
    which takes some five times as long (`benchmarks/convolution.py`). A batch of two goes to oneDNN: the volume is cut
    in two along its first axis, with a margin of one.

    In bfloat16 the oneDNN of torch 2.13 reads and writes beyond its memory where an axis of the answer has one voxel or
    two: gradients of the weights are noise or infinite, and now and then the process dies. Autocast is off there.
    """
    if _misread(layer, values):
        with torch.autocast("cpu", enabled=False):
            return convolve(layer, values.float())
    if not (isinstance(layer, nn.Conv3d) and _slow(layer, values)):
        out = layer(values)
        return channels_last(out) if values.stride(1) == 1 else out
    n = values.shape[2]
    half, whole = (n + 1) // 2, F.pad(values, [1] * 6)
    halves = torch.cat([whole[:, :, : half + 2], whole[:, :, n - half :]])
    first, second = F.conv3d(halves, layer.weight, layer.bias).split(1)
    return torch.cat([first, second[:, :, 2 * half - n :]], 2)


def channels_last(values: Tensor) -> Tensor:
    """Return `(B, C, *spatial)` laid out in memory as large convolutions on a CPU are fastest; unchanged elsewhere.

    `convolve` answers in the same layout, and so do pooling, upsampling and batch normalisation. Instance normalisation
    does not; where it stands between convolutions the layout costs more than it saves.
    """
    if values.device.type != "cpu":
        return values
    return values.contiguous(memory_format=torch.channels_last_3d if values.ndim == 5 else torch.channels_last)


def _misread(layer: nn.Module, values: Tensor) -> bool:
    if values.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    return min(n // step for n, step in zip(values.shape[2:], layer.stride, strict=True)) <= THIN


def _slow(layer: nn.Conv3d, values: Tensor) -> bool:
    """Return whether torch would leave oneDNN, for the one kind of layer that is worth it: 3³, stride 1, same size."""
    here = values.device.type == "cpu" and values.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    small = values.shape[0] == 1 and values[0, ..., 0].numel() <= SMALL and values.shape[2] >= 4
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    return here and small and shape == ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
