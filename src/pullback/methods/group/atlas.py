"""Groupwise spatio-temporal atlas: a network registers each scan to the template of its age, which is their mean.

Bastiaansen, Rousian, Steegers-Theunissen, Niessen, Koning, Klein: Towards a 4D spatio-temporal atlas of the embryonic
and fetal brain by groupwise registration, WBIR 2022; after Dalca et al. 2019, whose generator of templates it leaves to
later and which stands here as well. The classical form, by any register, is `template.TemplateBuilder`.

Equation 1, of the displacements φ, template → scan, and φ⁻¹: similarity of the template, seen through φ⁻¹, with the
scan, on the scan's grid; the mean square of the running mean of φ; and magnitude and roughness of φ⁻¹. The paper is
silent on what ≈ means in "until Aⁿ ≈ Aⁿ⁻¹", and on how long a round is: here a change of 1 % of the range, or three
rounds, of equal numbers of updates. It sorts scans by age so that its one running mean covers about a day; here each
age has a mean of its own, whatever the order.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullback.alignment import Alignment, Pair
from pullback.data import Subject, Test, Validation
from pullback.energies import LNCC, Diffusion, Energy
from pullback.errors import InputError
from pullback.files import write_image
from pullback.methods.group.conditional import ConditionalAtlas, age_of
from pullback.methods.group.mean_shape import moved_by, sharpness, towards
from pullback.methods.group.template import TemplateBuilder
from pullback.methods.method import Method, Paper
from pullback.numerics.difference import determinant, jacobian
from pullback.numerics.random import make_generator
from pullback.records.csv_records import write_csv
from pullback.records.ledger import Job, Ledger
from pullback.space import Displacement, Image, Transform, pull
from pullback.training import Task, device_of
from pullback.training.evaluation import Row
from pullback.training.measure import evaluating, mean_of

FEW = 5  # scans of an age, below which the nearest ages' are looked at as well for its first template
MOST = 100  # scans whose mean the generator adds to


class GroupwiseSupervision(nn.Module):
    """The supervision of a `ConditionalAtlas` by equation 1.

    The running mean of an age is kept at half size. The past is a constant: its gradient passes through the share of
    the scan at hand, so a longer window pulls less.

    Args:
        shape: of the templates.
        ages: as of the network.
        energy: similarity of the scan, fixed, and the template.
        group, magnitude, diffusion: weights; Dalca's gradient loss of 0.01 is a diffusion of 0.02.
        window: scans of an age that the running mean is over; about as many as there are.
    """

    mean: Tensor
    count: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        ages: tuple[float, ...] = (0.0,),
        energy: Energy = LNCC(9),
        group: float = 10.0,
        magnitude: float = 0.01,
        diffusion: float = 0.02,
        window: int = 20,
    ) -> None:
        super().__init__()
        self.ages, self.energy, self.window = ages, energy, window
        self.group, self.magnitude, self.diffusion = group, magnitude, diffusion
        half = tuple(-(-n // 2) for n in shape)
        self.register_buffer("mean", torch.zeros(len(ages), len(shape), *half))
        self.register_buffer("count", torch.zeros(len(ages), dtype=torch.int64))

    def forward(self, network: Callable[..., Alignment], example: Subject, progress: float) -> dict[str, Tensor]:
        age = age_of(example)
        answer = network(example.image, age)
        template, scan = answer.pair.fixed, answer.pair.moving
        back = answer.transform.inverse()
        seen = Alignment(Pair(scan, template), back)
        field = answer.transform.displacement(template.grid)
        mean = self.running(field, min(range(len(self.ages)), key=lambda n: abs(self.ages[n] - age)))
        square = mean.square().mean()
        motion = template.grid.to_mm(field.detach()).norm(dim=1).mean()
        rough = Diffusion(displacement=True).terms(seen)["diffusion"]
        return {
            **self.energy.terms(seen),
            "group": self.group * square,
            "magnitude": self.magnitude * back.displacement(scan.grid).square().mean(),
            "diffusion": self.diffusion * rough,
            "group/voxels²": square.detach(),
            "motion/mm": motion,
        }

    def running(self, field: Tensor, number: int) -> Tensor:
        """Return the running mean of an age after one more displacement `(1, d, *shape)`, at half size."""
        self.count[number] += 1
        share = 1 / min(int(self.count[number]), self.window)
        mean = (1 - share) * self.mean[number] + share * halved(field)[0]
        self.mean[number] = mean.detach()
        return mean


def halved(field: Tensor) -> Tensor:
    """Return means over blocks of two voxels along each axis; at the end of an odd axis over one."""
    pool = F.avg_pool2d if field.ndim == 4 else F.avg_pool3d
    return pool(field, 2, ceil_mode=True)


class RunningMeans:
    """Means by number, of tensors that come one after the other."""

    def __init__(self) -> None:
        self.means: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}

    def add(self, number: int, values: Tensor) -> None:
        """Count values in the mean of a number."""
        self.counts[number] = self.counts.get(number, 0) + 1
        before = self.means.get(number, torch.zeros_like(values))
        self.means[number] = before + (values - before) / self.counts[number]


@dataclass(frozen=True)
class AtlasEvaluation:
    """The evaluation of a `ConditionalAtlas` on scans: table 1 of the paper.

    Rows hold `similarity`, the energy's gain (of LNCC the mean squared correlation), `folding` of φ in %, `motion mm`,
    `group voxels²`, the mean square of the mean displacement of the scans of one age, at half size, and, with `truth`,
    `offset mm`, the mean distance from where the template lies to where the scans' true maps lead it.

    Attributes:
        split: the scans.
        energy: of the similarity.
        truth: whether the scans' maps to a world that all share are known, and that world is the mean.
    """

    split: Validation | Test
    energy: Energy = LNCC(9)
    truth: bool = False
    aligns: ClassVar[str] = "group"

    def __len__(self) -> int:
        return len(self.split)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the people."""
        return self.split.names

    def rows(self, network: Any, device: torch.device) -> Iterator[Row]:
        """Yield one row per scan."""
        fields, ways = RunningMeans(), RunningMeans()
        listed: list[tuple[int, Row]] = []
        for example in self.split:
            with evaluating(network):
                answer = network(example.to(device).image, age_of(example))
                number, grid = network.nearest(age_of(example)), answer.pair.fixed.grid
                field = answer.transform.displacement(grid)
                fields.add(number, halved(field))
                if self.truth:
                    way = (example.to_template.to(device) @ answer.transform).displacement(grid)
                    lit = answer.pair.fixed.data[:, :1] > 0.1
                    ways.add(number, torch.where(lit, grid.to_mm(way), torch.nan))
                listed.append((number, {"example": example.name, **self._numbers(answer, field)}))
        for number, row in listed:
            told: Row = {"group voxels²": float(fields.means[number].square().mean())}
            if self.truth:
                told["offset mm"] = float(ways.means[number].norm(dim=1).nanmean())
            yield row | told

    def _numbers(self, answer: Alignment, field: Tensor) -> Row:
        seen = Alignment(Pair(answer.pair.moving, answer.pair.fixed), answer.transform.inverse())
        loss = torch.stack(list(self.energy.terms(seen).values())).sum()
        folded = determinant(jacobian(field)) <= 0
        length = answer.pair.fixed.grid.to_mm(field).norm(dim=1)
        numbers = {"similarity": 1 - float(loss), "folding %": 100 * float(folded.double().mean())}
        return {**numbers, "motion mm": float(length.mean())}

    def score(self, means: dict[str, float]) -> float:
        """Return the similarity; NaN is worst."""
        return -math.inf if math.isnan(means["similarity"]) else means["similarity"]


@dataclass(frozen=True)
class AtlasRounds:
    """The procedure of an atlas: the network learns, the templates become the mean of the scans that it moved, again.

    The first templates are medians or means of the scans of an age, and of the nearest ones where these are few. The
    network goes on with its weights; all rounds together have the updates of `Training`. A generator learns with the
    network, in one round, about the mean of the first hundred scans. The task's folder gets `rounds.csv` and the
    templates, `atlas/`.

    Attributes:
        rounds: at most.
        start: `"median"` or `"mean"`; "first" takes one scan of each age, for comparison.
        change: mean change of the templates over their voxels, below which it is done; intensities are 0 … 1.
        centred: whether a mean displacement that is left is taken away as templates are made.

    Raises:
        InputError: no rounds, or another start.
    """

    rounds: int = 3
    start: str = "median"
    change: float = 0.01
    centred: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.start not in ("median", "mean", "first"):
            raise InputError(f"AtlasRounds: a round or more from 'median', 'mean' or 'first' expected, got {self}")

    def __call__(self, task: Task) -> nn.Module:
        """Train, and return the network with its templates.

        Raises:
            InputError: fewer updates than rounds, an age without scans, or scans on several grids.
        """
        network: ConditionalAtlas = task.make(0)
        cases: Sequence[Any] = task.examples.cases
        self.begun(network, cases)
        count = self.rounds if network.generator is None else 1
        if task.training.updates < count:
            raise InputError(f"{task.training.updates} updates for {count} rounds: each needs one at least")
        ledger, rows = None if task.out is None else Ledger(task.out), []
        for number in range(1, count + 1):
            network = self._learned(task, network, number, count)
            before = network.templates.clone()
            if network.generator is None:
                network.templates.copy_(self.made(network, cases))
            row = self._row(network, before, number, task)
            rows.append(row)
            if ledger is not None and task.out is not None:
                ledger.once(Job(f"round {number}"), lambda _: rows[-1])
                write_csv(rows, task.out / "rounds.csv")
            if row["change"] < self.change and network.generator is None:
                break
        if task.out is not None:
            write_templates(network, task.out / "atlas")
        return network

    def _learned(self, task: Task, network: ConditionalAtlas, number: int, count: int) -> ConditionalAtlas:
        """Return the network after a round."""
        share, left = divmod(task.training.updates, count)
        seed = make_generator(task.training.seed, number - 1).initial_seed()
        training = replace(task.training, updates=share + (number <= left), seed=seed)
        part = replace(task.part(f"round-{number}", training), evaluation=None)
        found: Any = part.trained(network)
        return found

    def _row(self, network: ConditionalAtlas, before: Tensor, number: int, task: Task) -> dict[str, float]:
        change = float((network.templates - before).abs().mean())
        middle = float(network.known_ages[len(network.known_ages) // 2])
        with torch.no_grad():
            row = {"round": float(number), "change": change, "sharpness": sharpness(network.template(middle))}
        if task.evaluation is None:
            return row
        network.to(device_of())
        means = mean_of(task.evaluation.rows(network, device_of()))
        network.cpu()
        return {**row, **means}

    def begun(self, network: ConditionalAtlas, cases: Sequence[Any]) -> None:
        """Give a network its grid and first templates.

        Raises:
            InputError: scans of another shape.
        """
        first = cases[0].load().image.grid
        if first.shape != network.shape:
            raise InputError(
                f"scans of {first.shape} voxels, and network.shape={network.shape}: set network.shape and "
                f"supervision.shape to theirs"
            )
        network.grid_affine.copy_(first.affine)
        if network.generator is not None:
            network.templates.copy_(torch.stack([case.load().image.data for case in cases[:MOST]]).mean(0))
            return
        ages = torch.tensor([age_of(case.load()) for case in cases], dtype=torch.float64)
        for number, age in enumerate(network.known_ages.tolist()):
            own = [n for n in range(len(cases)) if network.nearest(float(ages[n])) == number]
            near = (ages - age).abs().argsort(stable=True).tolist()
            chosen = own if len(own) >= FEW else near[: min(FEW, len(cases))]
            seen = torch.cat([cases[n].load().image.data for n in chosen])
            made = {"median": lambda x: x.median(0).values, "mean": lambda x: x.mean(0), "first": lambda x: x[0]}
            network.templates[number] = made[self.start](seen)

    @torch.no_grad()
    def made(self, network: ConditionalAtlas, cases: Sequence[Any]) -> Tensor:
        """Return means of the scans seen through the network's maps, `(ages, C, *shape)`; an age without is left."""
        found, device = network.templates.clone(), device_of()
        network.to(device).eval()
        subjects = [(case, age_of(case.load())) for case in cases]
        for number in range(len(network.known_ages)):
            own = [(case, age) for case, age in subjects if network.nearest(age) == number]
            fields = [self._field(network, case.load(), age, device) for case, age in own] if self.centred else []
            back = towards(torch.stack(fields).mean(0)) if fields else None
            total = torch.zeros(found[number : number + 1].shape, dtype=torch.float64)
            for case, age in own:
                image = case.load().image
                field = self._field(network, case.load(), age, device)
                moved: Transform = Displacement(field if back is None else moved_by(field, back), image.grid)
                total += pull(image, moved, onto=image.grid).data.double() / len(own)
            if own:
                found[number : number + 1] = total.float()
        network.cpu()
        return found

    @staticmethod
    def _field(network: ConditionalAtlas, scan: Subject, age: float, device: torch.device) -> Tensor:
        """Return the displacement of a scan's map, on the processor."""
        answer = network(scan.image.to(device), age)
        return answer.transform.displacement(scan.image.grid).cpu()


def write_templates(network: ConditionalAtlas, folder: Any) -> None:
    """Write the templates of a network at its known ages, as `template_age_30.nii.gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    for age in network.known_ages.tolist():
        with torch.no_grad():
            image = network.template(age)
        write_image(Image(image.data[:, :1], image.grid), folder / f"template_age_{age:g}.nii.gz")


METHOD = Method(
    about="the template of a group of scans, or one for each age: the mean image in the mean shape",
    aligns=("group",),
    trained=True,
    papers=(
        Paper(
            "bastiaansen2022towards",
            "Bastiaansen, Wietske A. P. and Rousian, Melek and Steegers-Theunissen, R{\\'e}gine P. M. and Niessen, "
            "Wiro J. and Koning, Anton H. J. and Klein, Stefan",
            "Towards a 4D Spatio-Temporal Atlas of the Embryonic and Fetal Brain Using Groupwise Image Registration",
            "Biomedical Image Registration (WBIR)",
            2022,
            "10.1007/978-3-031-11203-4_4",
        ),
        Paper(
            "dalca2019learning",
            "Dalca, Adrian V. and Rakic, Marianne and Guttag, John and Sabuncu, Mert R.",
            "Learning Conditional Deformable Templates with Convolutional Networks",
            "Advances in Neural Information Processing Systems (NeurIPS)",
            2019,
        ),
        Paper(
            "davis2010population",
            "Davis, Brad C. and Fletcher, P. Thomas and Bullitt, Elizabeth and Joshi, Sarang",
            "Population Shape Regression from Random Design Data",
            "International Journal of Computer Vision",
            2010,
            "10.1007/s11263-010-0367-1",
            "article",
            "90",
            "255--266",
        ),
        Paper(
            "avants2010optimal",
            "Avants, Brian B. and Yushkevich, Paul and Pluta, John and Minkoff, David and Korczykowski, Marc and "
            "Detre, John and Gee, James C.",
            "The Optimal Template Effect in Hippocampus Studies of Diseased Populations",
            "NeuroImage",
            2010,
            "10.1016/j.neuroimage.2009.09.062",
            "article",
            "49",
            "2457--2466",
        ),
    ),
    register=TemplateBuilder(),
    commands=("atlas --data DIR",),
)
