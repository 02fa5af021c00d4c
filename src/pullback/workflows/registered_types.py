"""Types asked for again after each stage of registering everybody to one of them, and what that removes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pullback.methods.group.distances import structural
from pullback.methods.group.onto_template import OntoTemplate, Shown, pulled_labels
from pullback.methods.group.structural_types import Typed, Types, removed, stage_numbers, variance
from pullback.workflows.gathered import Gathered

SAME = 1e-9  # of a distance, below which two people are copies


def registered_stages(
    people: Gathered,
    onto: OntoTemplate,
    types: Types,
    found: Typed,
    before: Tensor,
    background: bool,
    shown: Shown = iter,
) -> list[dict[str, Any]]:
    """Register everybody to the most typical person, and, of several types, each to that of the own type.

    Types are those after the affine stage, where pose is gone: only pairs within one have a grid in common at the end.

    Args:
        people: with images.
        onto: how they are registered.
        types: how types are sought.
        found: the types before.
        before: distances before.
        background: as of `structural`.
        shown: shows progress.

    Returns:
        A row for each stage: `stage`, and `stage_numbers`.
    """
    template, images, labels = found.typical(), people.images, people.stored

    def after(who: Sequence[int], own: int, transforms: Sequence[Any]) -> Tensor:
        """Return distances of some of the people on the template's grid."""
        pulled = pulled_labels([labels[n] for n in who], transforms, labels[own].grid)
        return structural([each.data[0, 0] for each in pulled], background=background)

    everybody = range(len(images))
    starts = onto.affine(images, template, shown)
    affine = after(everybody, template, starts)
    deformed = after(everybody, template, onto.deformed(images, template, starts, shown))
    typed = _asked_again(types, affine)
    groups = torch.zeros(len(images), dtype=torch.long) if typed is None else typed.types
    rows = [
        {"stage": "before", **stage_numbers(found, before, before, groups)},
        {"stage": "affine", **_numbers(typed, affine, before, groups)},
        {"stage": "deformable", **_numbers(_asked_again(types, deformed), deformed, before, groups)},
    ]
    if typed is None or len(typed.sizes) == 1:
        return rows
    within = torch.zeros_like(before)
    for k in range(len(typed.sizes)):
        who = (groups == k).nonzero()[:, 0]
        theirs, place = [images[n] for n in who], who.tolist().index(typed.typical(k))
        moved = onto.deformed(theirs, place, onto.affine(theirs, place, shown), shown)
        if len(who) > 1:
            within[who[:, None], who] = after(who.tolist(), typed.typical(k), moved)
    return [*rows, {"stage": "by type", **stage_numbers(None, within, before, groups)}]


def _asked_again(types: Types, distances: Tensor) -> Typed | None:
    """Return the types after a stage; None where everybody has become the same."""
    return None if float(distances.max()) < SAME else types(distances)


def _numbers(found: Typed | None, distances: Tensor, before: Tensor, groups: Tensor) -> dict[str, float]:
    whole = {"variance": variance(distances), "removed": removed(before, distances)}
    return whole | stage_numbers(found, distances, before, groups)
