"""The study of trust in registered atlases (Weihsbach et al. 2022), part by part.

    pullback study deep-staple consensus shared-error --data hippocampus=hippocampus/ --seed 0
    pullback study deep-staple inline terms --data hippocampus=hippocampus/ --seed 0

Targets are hippocampi, each with the labels of eight other people's, of which half are brought onto it by ConvexAdam, a
fifth by affine maps, and the rest not at all. Nobody knows which. Measured are 10 targets; by the true labels of 4
others the update is chosen at which trust is taken.

In `shared-error`, five of eight label maps of some targets are the true one, shifted the same way by three voxels along
two axes: the majority there is wrong, and no vote among the label maps of one image can know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure as Drawing

from pullback.data.candidates import Candidates
from pullback.data.multi_atlas import MultiAtlas, SharedError
from pullback.methods.labels.consensus import Consensus, dice_with, majority, simple, staple, weighted
from pullback.methods.labels.deep_staple import LearnedTrust, TrustedSegmenter, consensus_quality
from pullback.recipes import find
from pullback.report.figures import COLOURS, blank, legend
from pullback.space import Affine, Image, Labels, pull
from pullback.studies._images import DICE
from pullback.study.arms import Arm, RegisterArm, TrainedArm
from pullback.study.contrasts import Contrasts
from pullback.study.figures import curves
from pullback.study.result import Result, network_of
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import ExampleEvaluation, Row

ERROR = SharedError()
"""By its seed five of the fourteen targets have it, three of which are measured."""

# ---- arms


@dataclass(frozen=True)
class LabelFusion:
    """A consensus by the label maps alone.

    Attributes:
        by: makes it of a batch of label maps.
        cropped: of STAPLE, as there.
    """

    by: Callable[..., Consensus]
    cropped: bool | None = None

    def __call__(self, candidates: Candidates) -> Consensus:
        more = {} if self.cropped is None else {"cropped": self.cropped}
        return self.by(candidates.labels, **more)


@dataclass(frozen=True)
class Oracle:
    """A consensus by the true labels: of the best label map alone, or of all, by exp(sharpness · Dice).

    Attributes:
        sharpness: of the weights; None takes the best alone.
    """

    sharpness: float | None = 8.0

    def __call__(self, candidates: Candidates) -> Consensus:
        """Return the consensus of candidates whose truth is known."""
        assert candidates.truth is not None
        dice = dice_with(candidates.labels, candidates.truth)
        best = torch.nn.functional.one_hot(dice.argmax(), len(dice)).double()
        return weighted(candidates.labels, best if self.sharpness is None else (self.sharpness * dice).softmax(0))


@dataclass(frozen=True)
class ByTrust:
    """A consensus by what a network has learned to trust."""

    network: TrustedSegmenter

    def __call__(self, candidates: Candidates) -> Consensus:
        return self.network.consensus(candidates)


@dataclass(frozen=True)
class OwnSegmentation:
    """A segmentation by the network that learned along with trust, without any label map.

    Attributes:
        network: of the run.
        spacing: of the voxels that it sees, mm.
    """

    network: TrustedSegmenter
    spacing: float = 2.0

    @torch.no_grad()
    def __call__(self, candidates: Candidates) -> Consensus:
        image = candidates.image
        seen = candidates.on(image.grid.at_spacing((self.spacing,) * image.grid.ndim)).image
        scores = self.network(seen)
        sure = pull(Image(scores.softmax(1), seen.grid), Affine.identity(image.grid.ndim), onto=image)
        best, which = sure.data.max(1, keepdim=True)
        values = torch.tensor([0, *self.network.segmenter.labels], device=which.device)
        return Consensus(Labels(values[which], image.grid), torch.zeros(0), best)


def shared_quality(fuse: Callable[[Candidates], Consensus], candidates: Candidates) -> dict[str, float]:
    """Measure a consensus as `consensus_quality`, and apart where most label maps share an error, and elsewhere."""
    found = consensus_quality(fuse, candidates)
    return found | {"shared" if ERROR.here(candidates.name) else "others": found["dice"]}


# ---- trust in each label map


def each_trust(result: Result) -> list[Row]:
    """Return one row for each label map and run: its data parameter, its Dice with the truth, and its target.

    Arms of one run are told once, by the first.
    """
    rows: list[Row] = []
    told: set[Path] = set()
    for arm, units in result.runs.items():
        for unit in (each for each in units if each.folder not in told):
            told.add(unit.folder)
            network = cast(TrustedSegmenter, network_of(unit).cpu())
            for known in (case.load() for case in unit.trial.data.train.cases):
                trust = network.data_parameters(known.numbers).tolist()
                right = dice_with(known.labels, known.truth).tolist()
                rows += [
                    {"arm": arm, "seed": unit.trial.seed, "target": known.name, "trust": one, "dice": other}
                    for one, other in zip(trust, right, strict=True)
                ]
    return rows


def scatter(result: Result, rows: Sequence[Row]) -> Drawing:
    """Draw the data parameter of each label map over its Dice with the truth, with their rank correlation: figure 2."""
    from scipy.stats import spearmanr  # noqa: PLC0415 (slow to import)

    figure, (axis,) = blank()
    for colour, arm in zip(COLOURS, dict.fromkeys(str(row["arm"]) for row in rows), strict=False):
        own = [(float(row["dice"]), float(row["trust"])) for row in rows if row["arm"] == arm]
        one, two = zip(*own, strict=True)
        label = f"{arm}, r = {spearmanr(one, two).statistic:.3f}"
        axis.plot(one, two, "o", color=colour, alpha=0.5, markersize=3, label=label)
    axis.set_xlabel("Dice of a label map with the truth")
    axis.set_ylabel("data parameter")
    legend(figure, axis)
    return figure


# ---- tables

UNTRAINED: Mapping[str, Arm] = {
    "majority": RegisterArm(LabelFusion(majority)),
    "STAPLE": RegisterArm(LabelFusion(staple)),
    "STAPLE, cropped": RegisterArm(LabelFusion(staple, cropped=True)),
    "SIMPLE": RegisterArm(LabelFusion(simple)),
    "best atlas": RegisterArm(Oracle(None)),
    "oracle weights": RegisterArm(Oracle()),
}
RANK = Column("rank correlation", better="more", key="rank")
SHARED = Column("Dice, error shared", better="more", key="shared")
OTHERS = Column("Dice, others", better="more", key="others")
QUALITY = partial(ExampleEvaluation, measure=consensus_quality, chooses="dice")
RECIPE = find("deep-staple", on="hippocampus")
DATA, TAUGHT = cast(MultiAtlas, RECIPE.data), cast(LearnedTrust, RECIPE.supervision)
OURS = "DeepSTAPLE"
TRUSTED = TrainedArm(RECIPE, uses=ByTrust)
MAPS = Figure(scatter, each_trust)


def consensus(error: SharedError | None) -> Experiment:
    """Return the experiment of one kind of candidates."""
    arms = {**UNTRAINED, OURS: TRUSTED, "its network": TrainedArm(RECIPE, uses=OwnSegmentation)}
    measure = consensus_quality if error is None else shared_quality
    quality = partial(ExampleEvaluation, measure=measure, chooses="dice")
    return Experiment(arms, "STAPLE", replace(DATA, error=error), (), quality)


def varied(**settings: Any) -> dict[str, Arm]:
    """Return arms with other settings of the supervision: by trust, and the network by itself."""
    recipe = replace(RECIPE, supervision=replace(TAUGHT, **settings))
    return {"consensus": TrainedArm(recipe, uses=ByTrust), "network": TrainedArm(recipe, uses=OwnSegmentation)}


def compared(ways: Mapping[str, Mapping[str, Any]], baseline: str) -> Experiment:
    """Return the experiment of settings of the supervision, by name."""
    arms = {f"{way}, {what}": arm for way, settings in ways.items() for what, arm in varied(**settings).items()}
    return Experiment(arms, f"{baseline}, consensus", DATA, (), QUALITY)


INLINE: Mapping[str, Mapping[str, Any]] = {
    "out of line": {},
    "out of line, classes alike": {"rare": 0.0},
    "inline": {"inline": True},
    "inline, classes alike": {"inline": True, "rare": 0.0},
}
TERMS: Mapping[str, Mapping[str, Any]] = {
    "risk and size": {},
    "risk": {"size": False},
    "size": {"risk": False},
    "neither": {"risk": False, "size": False},
    "as printed": {"balanced": False},
}
PAIRS = [(OURS, name) for name in ("STAPLE", "STAPLE, cropped", "majority", "SIMPLE")]
TESTS = (Contrasts("consensus", paired, PAIRS, "greater"),)

study = Study(
    about="DeepSTAPLE: Learning to Predict Multimodal Registration Quality for Unsupervised Domain Adaptation "
    "(Weihsbach et al. 2022)",
    tables={
        "consensus": Table(
            "Consensus of eight label maps, of registrations that are good, poor or missing",
            "Figure 5: Dice 64.3 % against STAPLE's 58.1 (deeds), 61.6 against 56.8 (ConvexAdam). No other vote is "
            "shown.",
            {"hippocampus": consensus(None)},
            (DICE, RANK),
            {"trust": MAPS, "curves": Figure(partial(curves, columns=(DICE, RANK)))},
            TESTS,
            "dice",
        ),
        "shared-error": Table(
            "The same where five of eight label maps of some targets share an error",
            "None: this is not shown.",
            {"hippocampus": consensus(ERROR)},
            (DICE, SHARED, OTHERS, RANK),
            {"trust": MAPS, "curves": Figure(partial(curves, columns=(DICE, RANK)))},
            TESTS,
            "dice",
        ),
        "inline": Table(
            "Trust that learns with the network's loss or beside it, with and without weights of classes",
            "Figure 4: inline, both the network's Dice and the correlation of trust are worse. The paper's out of line "
            "has weights of classes as well, inline has none.",
            {"hippocampus": compared(INLINE, "out of line")},
            (DICE, RANK),
        ),
        "terms": Table(
            "Risk, size and balance of the costs",
            "Figure 2: the correlation is highest with risk and size; the network's Dice is the same.",
            {"hippocampus": compared(TERMS, "risk and size")},
            (DICE, RANK),
        ),
    },
)
