"""The contract of registers of groups, and groups whose alignment is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pullback.group import Group, GroupAlignment
from pullback.space import Affine, Grid, Image, Transform
from pullback.testing.contract import Untouched, check_finite, require, tensors_of
from pullback.testing.problems import EDGE, SHAPES, chosen, sampled, scene

MEMBERS = 4


@dataclass(frozen=True, eq=False)
class GroupProblem:
    """Images of one scene, each shifted, and how far.

    Attributes:
        name: one of `GROUP_PROBLEMS`.
        group: the images and their edges.
        truths: from the common world to each image's.
        within: mean distance in mm, over the edges, of an answer that solves the problem.
        because: the reason of that tolerance.
    """

    name: str
    group: Group
    truths: tuple[Transform, ...]
    within: float
    because: str

    def __str__(self) -> str:
        return f"{self.name} {self.group.images[0].grid.ndim}-D"

    def distance(self, found: GroupAlignment) -> float:
        """Return the mean distance in mm, over edges and bodies, between where answer and truth lead the voxels.

        From image to image, for the common world is free.
        """
        far = []
        for edge, aligned in zip(self.group.edges, found.pairs, strict=True):
            fixed = aligned.pair.fixed
            wanted = self.truths[edge[1]] @ self.truths[edge[0]].inverse()
            off = aligned.transform.displacement(fixed.grid) - wanted.displacement(fixed.grid)
            body = fixed.data > 0.3
            far.append(fixed.grid.to_mm(off.detach().double()).norm(dim=1, keepdim=True)[body].mean())
        return float(torch.stack(far).mean())


def _problem(name: str, ndim: int, star: bool, size: float) -> GroupProblem:
    value = scene(ndim)
    grid = Grid.centred(SHAPES[ndim], EDGE)
    still = torch.eye(ndim, dtype=torch.float64)
    ways = torch.tensor([[0, 0, 0], [2.0, -1.0, 1.0], [-1.5, 1.5, 0.5], [0.5, 2.0, -1.5]], dtype=torch.float64)
    truths = tuple(Affine.about(still, 0 * still[0], size * ways[n, :ndim]) for n in range(MEMBERS))
    images = [_bare(sampled(grid, value, truth.inverse())) for truth in truths]
    group = Group.star(images[0], images[1:]) if star else Group.chain(images, reach=2)
    why = "half a voxel, as of two images"
    return GroupProblem(name, replace(group, name=name), truths, EDGE / 2, why)


def _bare(image: Image) -> Image:
    return replace(image, mask=None)


def star_identity(ndim: int) -> GroupProblem:
    """Return a template and three images that are the same."""
    return _problem("star_identity", ndim, True, 0.0)


def star_shifts(ndim: int) -> GroupProblem:
    """Return a template and three images shifted by one to two voxels."""
    return _problem("star_shifts", ndim, True, 1.0)


def chain_identity(ndim: int) -> GroupProblem:
    """Return four images that are the same, each compared with the next two."""
    return _problem("chain_identity", ndim, False, 0.0)


def chain_shifts(ndim: int) -> GroupProblem:
    """Return four images shifted by one to two voxels, each compared with the next two."""
    return _problem("chain_shifts", ndim, False, 1.0)


GROUP_PROBLEMS: dict[str, Callable[[int], GroupProblem]] = {
    made.__name__: made for made in (star_identity, star_shifts, chain_identity, chain_shifts)
}
"""All problems of groups by name; each is made in 2-D or in 3-D."""


def group_problems(*names: str, ndim: int | tuple[int, ...] = (2, 3)) -> list[GroupProblem]:
    """Return problems of groups by name, or all of them, each in 2-D and in 3-D.

    Raises:
        InputError: there is no such problem.
    """
    return chosen(GROUP_PROBLEMS, names, (ndim,) if isinstance(ndim, int) else ndim)


def check_group(register: Callable[[Group], GroupAlignment], problem: GroupProblem, *, solves: bool = True) -> float:
    """Hold a register of groups against its contract, on one problem.

    Its answer is of the group that it was given, finite and the same each time; images stay as they are; from image to
    image it leads as the truth does, whatever common world it chose.

    Args:
        register: called with a group it answers with a `GroupAlignment`.
        problem: one of `group_problems()`.
        solves: whether the answer must lie as near to the truth as the problem says.

    Returns:
        mean distance in mm from the truth, over the edges.

    Raises:
        BrokenContract: a promise was not kept.
    """
    where = f"{getattr(register, '__name__', type(register).__name__)} on {problem}"
    untouched = Untouched(problem.group)
    first, again = register(problem.group), register(problem.group)
    require(isinstance(first, GroupAlignment), where, "a GroupAlignment", type(first).__name__)
    alike = [len(found.group.images) == len(problem.group.images) for found in (first, again)]
    edges = first.group.edges == problem.group.edges
    require(all(alike) and edges, where, "the images and edges of the group", "others")
    for transform, image in zip(first.transforms, first.group.images, strict=True):
        check_finite(transform.displacement(image.grid), where, "displacements")
    pairs = zip(tensors_of(first.transforms), tensors_of(again.transforms), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), where, "the same answer each time", "another")
    untouched.check(where)
    distance = problem.distance(first)
    if solves:
        promised = f"a mean distance of at most {problem.within:g} mm from the truth ({problem.because})"
        require(distance <= problem.within, where, promised, f"{distance:.2f} mm")
    return distance
