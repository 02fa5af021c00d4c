"""Teachers: registers whose answers a network learns from, and which do not learn."""

import torch
from torch import nn

from pullback.alignment import Pair, Register
from pullback.space import Transform


def answer_of(teacher: Register, pair: Pair) -> Transform:
    """Return a teacher's answer to a pair, fixed → moving, through which no gradient passes.

    A network answers as in evaluation, on the device of the pair.
    """
    if isinstance(teacher, nn.Module):
        teacher.eval().to(pair.fixed.data.device)
    with torch.no_grad():
        return teacher(pair.fixed, pair.moving).transform
