"""Sections in several stains: what the classical method compares of them."""

from dataclasses import replace

from pullback.alignment import Register
from pullback.methods.pair.classical import STAINED, Classical
from pullback.solvers import Refine
from pullback.workflows.choices import PRESETS, classical
from pullback.workflows.inputs import ImageFiles


def are_stained(fixed: ImageFiles, moving: ImageFiles) -> bool:
    """Return whether both images are of stained sections: pictures or slides in colour, on glass."""
    return all(
        len(files.slides) == len(files.images) and all(slide.coloured and slide.glass for slide in files.slides)
        for files in (fixed, moving)
    )


def for_stains(register: Register | Refine) -> Register | Refine:
    """Return a register that suits stained sections: a classical one with `STAINED` in place of a preset's stage.

    A stage of which anything was chosen, its energy, smoothness, field or numbers, stays, as do other methods.
    """
    if isinstance(register, Classical) and register.deformable in [classical(name).deformable for name in PRESETS]:
        return replace(register, deformable=STAINED)
    return register
