"""Ways to make the templates of an atlas: by any register of two images, or by a network that has its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from pullback.alignment import Alignment, Pair, Register
from pullback.errors import Interrupted
from pullback.methods.group.conditional import ConditionalAtlas
from pullback.methods.group.template import FIELD, TEMPLATE, Keep, Template, TemplateBuilder, Tensors
from pullback.records.ledger import Job, Ledger
from pullback.solvers import Refine
from pullback.space import Affine, Displacement, Image, Transform, pull
from pullback.training.checkpoint import load_tensors, save_tensors
from pullback.workflows.atlas_outputs import PlannedTemplates
from pullback.workflows.register import settings_of
from pullback.workflows.scans import ScanImages, Scans


class Making(Protocol):
    """A way to make templates."""

    @property
    def settings(self) -> Any:
        """All that it depends on, as data."""
        ...

    @property
    def between(self) -> Register | Refine | None:
        """A register of two templates, or None."""
        ...

    def __call__(self, images: ScanImages, plan: PlannedTemplates, keep: Keep) -> list[Template]:
        """Return the templates of a plan."""
        ...


@dataclass(frozen=True)
class ByBuilder:
    """Templates by any register of two images.

    Attributes:
        builder: makes a template.
        device: where its registers compute.
    """

    builder: TemplateBuilder = TemplateBuilder()
    device: torch.device = torch.device("cpu")

    @property
    def settings(self) -> Any:
        """The parts of the builder."""
        return {part: settings_of(value) for part, value in vars(self.builder).items()}

    @property
    def between(self) -> Register | Refine | None:
        """The register that deforms."""
        return _on(self.builder.deformable, self.device)

    def __call__(self, images: ScanImages, plan: PlannedTemplates, keep: Keep) -> list[Template]:
        """Return the templates of a plan."""
        there = replace(self.builder, linear=_on(self.builder.linear, self.device), deformable=self.between)
        placed = there.placed(images, keep)
        every = zip(plan.names, plan.weights, strict=True)
        return [there.template(images, placed, weights, keep, name) for name, weights in every]


def _on(register: Register | Refine | None, device: torch.device) -> Register | Refine | None:
    """Return a register that computes on a device and answers on the processor."""
    here = torch.device("cpu")
    if register is None or device == here:
        return register

    def aligned(fixed: Image, moving: Image, start: Transform | None = None) -> Alignment:
        found = register(fixed.to(device), moving.to(device), start=start and start.to(device))  # type: ignore[call-arg]
        return Alignment(Pair(fixed, moving), found.transform.to(here))

    return aligned


@dataclass(frozen=True, eq=False)
class ByNetwork:
    """Templates that a network stores or generates, and its maps.

    Attributes:
        network: of a run.
        run: its folder.
    """

    network: ConditionalAtlas
    run: str = ""

    @property
    def settings(self) -> Any:
        """The folder of the run."""
        return {"network": self.run}

    @property
    def between(self) -> Register:
        """The register of a template and an image."""
        return self.network.register

    def __call__(self, images: ScanImages, plan: PlannedTemplates, keep: Keep) -> list[Template]:
        """Return the templates of a plan; scans are resampled on their grid, as their headers say."""
        return [self._made(images, plan, k, keep) for k in range(len(plan.names))]

    def _made(self, images: ScanImages, plan: PlannedTemplates, k: int, keep: Keep) -> Template:
        network, age = self.network, 0.0 if plan.ages is None else float(plan.at[k])
        with torch.no_grad():
            image = network.template(age)

        @torch.no_grad()
        def aligned(n: int) -> Tensors:
            scan = pull(images[n], Affine.identity(network.grid.ndim), onto=network.grid)
            return {FIELD: network(scan, age).transform.displacement(network.grid)}

        def transform(n: int) -> Transform:
            known = keep(f"{plan.names[k]} round 1", str(n), partial(aligned, n))
            return Displacement(known[FIELD], network.grid)

        weights = plan.weights[k]
        who = weights.nonzero()[:, 0].tolist()
        return Template(image, who, weights[who], transform)


def kept(
    folder: Path, scans: Scans, about: object, stopping: Callable[[], object], told: Callable[[str], object]
) -> Keep:
    """Return what keeps the tensors of a piece of work in files, by a ledger; of a template those of its last round.

    All of it depends on all files of the scans, and on `about`.
    """
    ledger = Ledger(folder)
    all_of_them = Job("scans", scans.names, scans.files)
    ledger.once(all_of_them, lambda _: None)
    known = [about, ledger.key(all_of_them)[0]]

    def keep(stage: str, name: str, make: Callable[[], Tensors]) -> Tensors:
        called = scans.names[int(name)] if name.isdigit() else name
        path = Path(stage.replace(" ", "-")) / f"{called.replace('/', '-')}.safetensors"
        job = Job(f"{stage}: {called}", known, (), (path.as_posix(),))

        def work(_: Job) -> None:
            if stopping():
                raise Interrupted("stopped; the same command goes on from there")
            told(job.name)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            save_tensors(make(), folder / path, {})

        ledger.once(job, work)
        if name == TEMPLATE:
            _forget(folder, stage)
        return load_tensors(folder / path)[0]

    return keep


def _forget(folder: Path, stage: str) -> None:
    """Remove what was kept of people for the round before; its template stays."""
    of, _, number = stage.rpartition(" ")
    before = folder / f"{of} {int(number) - 1}".replace(" ", "-")
    for path in before.glob("*.safetensors"):
        if path.stem != TEMPLATE:
            path.unlink(missing_ok=True)
