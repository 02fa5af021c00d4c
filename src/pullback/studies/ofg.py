"""The study of On-the-Fly Guidance (Xin et al. 2024, arXiv:2308.15216), part by part."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from types import MappingProxyType

from pullback.energies import MSE, Diffusion
from pullback.example import Supervision
from pullback.methods.pair.ofg import (
    EveryKth,
    Guided,
    GuidedByFittedNetworks,
    GuidedByNetworks,
    Mixture,
    Portion,
)
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.strain import Relative
from pullback.recipes import find
from pullback.recipes.ofg import fading
from pullback.recipes.unsupervised import ENERGY, EPOCHS
from pullback.solvers import FieldAdam, summed_sgd
from pullback.studies._images import COLUMNS, DICE, FOLDING, METRICS, SDLOGJ, UNTRAINED, trained
from pullback.study.analyses import by_distance, by_validation, descended, landscape, refined
from pullback.study.arms import Source, TrainedArm
from pullback.study.figures import boxes, by_number, contours, curves, distances, dots, fields, traded
from pullback.study.peers import ANTs, PeerArm
from pullback.study.recipe import changed
from pullback.study.run import Run
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import Unsupervised

PAPERS = ("ixi", "oasis", "lpba40", "abdomen")
SETS = ("phantom", "hippocampus", "brains", "slices", *PAPERS)
COMPARED = ("voxelmorph", "vit-v-net", "transmorph")
GUIDED = Guided(ENERGY)
PLAIN = Unsupervised(ENERGY)
PSEUDO = SelfTraining(Run(), energy=ENERGY)
DAMPED = replace(GUIDED, solver=replace(GUIDED.solver, optimiser=FieldAdam(10 * FieldAdam.eps)))

Ways = Mapping[str, Supervision | partial[GuidedByNetworks] | partial[GuidedByFittedNetworks]]


LAMBDAS = (1.0, 2.0, 3.0)
NORMS = ("unsupervised", "guided", "guided in H¹")


def _steps(count: int) -> Guided:
    return replace(GUIDED, solver=replace(GUIDED.solver, steps=count))


TAUGHT: Ways = {
    "self-training": PSEUDO,
    "optimised self-training": SelfTraining(Run(), GUIDED.solver, ENERGY),
}
STEPS: Ways = {"1 step": _steps(1), **{f"{n} steps": _steps(n) for n in (3, 5, 15)}}
SHORT = replace(_steps(3), energy=MSE() + 0.02 * Diffusion())
TRAINING = Figure(partial(curves, columns=(DICE, FOLDING)))
LABELS = Figure(partial(boxes, column=DICE))
DOTS = Figure(partial(dots, columns=(DICE, FOLDING)))
STARTS = Figure(
    partial(by_number, columns=(DICE, Column("energy")), number="steps", label="steps", of="start"),
    partial(descended, energy=ENERGY, solver=GUIDED.solver, metrics=METRICS),
    ("start", "steps"),
)
REFINEMENT = Figure(
    partial(by_number, columns=(DICE, FOLDING), number="steps", label="steps of refinement"),
    partial(refined, energy=ENERGY, metrics=METRICS),
    ("arm", "steps"),
)
DISTANCE = Figure(
    partial(distances, column=DICE, start="before"),
    partial(by_distance, number=DICE.number, start="before"),
    ("pairs", "arm"),
)
CHOICE = Figure(
    partial(traded, across=FOLDING, up=DICE, ways=NORMS),
    partial(by_validation, ways=NORMS, number=DICE.number, unit="subject"),
    ("way", "arm"),
)
CT = {"voxelmorph": ("MSE, 3 steps", SHORT), "transmorph": ("5 steps", _steps(5))}


def _experiment(
    data: str, network: str, ways: Ways = MappingProxyType({}), baseline: str = "unsupervised"
) -> Experiment:
    """Return the experiment of one network on one set of images: unsupervised, guided and further ways."""
    plain, guided = (find(method, network, data) for method in (network, "ofg"))
    more = {
        name: replace(guided, supervision=fading(supervision, guided.training)) for name, supervision in ways.items()
    }
    teacher = TrainedArm(plain)
    taught = Source(teacher, "supervision.teacher.folder")
    arms = {"unsupervised": teacher, "guided": TrainedArm(guided)}
    arms |= {
        name: TrainedArm(one, taught if isinstance(ways[name], SelfTraining) else None) for name, one in more.items()
    }
    return trained(arms, baseline)


def _with_syn(data: str, network: str) -> Experiment:
    """Return the experiment with ANTs beside it, as in the paper's table."""
    experiment = _experiment(data, network)
    beside = {**UNTRAINED, "SyN": PeerArm(ANTs("SyN"))}
    return replace(experiment, arms={**beside, **experiment.arms})


def _each(
    make: Callable[[str, str], Experiment] = _experiment, networks: Iterable[str] = COMPARED
) -> dict[str, Experiment]:
    """Make an experiment for each set of images and network."""
    known = [(data, _as_theirs(network, data)) for data in SETS for network in networks]
    return {f"{data}/{network}": make(data, network) for data, network in known}


def _as_theirs(network: str, data: str) -> str:
    """Return the name of the network on a set of images: on the paper's own, its own VoxelMorph."""
    return "voxelmorph-light" if network == "voxelmorph" and data in PAPERS else network


def _optimisers(data: str, network: str) -> Experiment:
    """Return the experiment of optimisers of the label; cascaded networks are VoxelMorphs of as many dimensions."""
    cascaded = find("ofg", _as_theirs("voxelmorph", data), data).network
    sgd = replace(GUIDED.solver, optimiser=summed_sgd)
    ways: Ways = {
        "downsampled": replace(GUIDED, coarser=2),
        "by networks": partial(GuidedByNetworks, network=cascaded),
        "by networks, as in the authors' code": partial(GuidedByFittedNetworks, network=cascaded),
        "SGD": replace(GUIDED, solver=sgd),
        "SGD, 1 step": replace(GUIDED, solver=replace(sgd, steps=1)),
        "MSE, 3 steps": SHORT,
    }
    return _experiment(data, network, ways, "guided")


def _intensity(data: str, network: str) -> Experiment:
    """Return the experiment of how often to guide, and of blends, which have the regularity of both their losses."""
    epochs = EPOCHS if find("ofg", network, data).training.updates > 20 * EPOCHS else EPOCHS // 10
    ways: dict[str, Supervision] = {
        f"every {name} epoch": Mixture(GUIDED, EveryKth(k, epochs), PLAIN)
        for k, name in ((2, "2nd"), (5, "5th"), (10, "10th"))
    }
    for a in (0.75, 0.5, 0.25):
        blend = replace(GUIDED, weight=a, regularity=(1 - a) * ENERGY + 0.02 * Diffusion())
        ways[f"{a:g} guide + {1 - a:g} unsupervised"] = blend
    ways |= {f"{100 * p:g} % of pairs": Mixture(GUIDED, Portion(p), PLAIN) for p in (0.75, 0.5, 0.25)}
    return _experiment(data, network, ways, "guided")


def _called(way: str, stiffness: float, faster: float) -> str:
    """Return the name of an arm, which begins with the way it learns, up to a comma."""
    more = (f"λ {stiffness:g}" if stiffness != 1 else "", f"rate × {faster:g}" if faster != 1 else "")
    return ", ".join(filter(None, (way, *more)))


def _norms(data: str, network: str) -> Experiment:
    """Return the experiment of what guess and label are compared by, beside unsupervised training at its best.

    λ weighs the regularity of the energy that is learned by, or that the label descends. Strains count κ times, by the
    default, and twice as much. VoxelMorph, which learns at little cost, tries each way to learn at each λ and at
    another rate: twice the recipe's, or half on hippocampus, where it diverges. Transformers have the highest rate that
    they bear, and try each λ unsupervised alone.
    """
    wide = network == "voxelmorph"
    rates = (1.0, 0.5 if data == "hippocampus" else 2.0) if wide else (1.0,)
    arms = {}
    for way, method in zip(NORMS, (network, "ofg", "ofg-h1"), strict=True):
        recipe = find(method, network, data)
        plain = way == NORMS[0]
        for faster, stiffness in product(rates, LAMBDAS if wide or plain else (1.0,)):
            if plain or 1 in (faster, stiffness):
                numbers = {"training.lr": faster * recipe.training.lr, "supervision.energy.parts.1.weight": stiffness}
                settings = {key: repr(number) for key, number in numbers.items()}
                arms[_called(way, stiffness, faster)] = TrainedArm(changed(recipe, settings))
    twice = {"supervision.strain.factor": repr(2 * Relative.factor)}
    arms[f"{NORMS[-1]}, κ {2 * Relative.factor:g}"] = TrainedArm(changed(find("ofg-h1", network, data), twice))
    return trained(arms)


study = Study(
    about="On-the-Fly Guidance Training for Medical Image Registration (Xin et al. 2024)",
    tables={
        "table1": Table(
            "Guided against unsupervised, three networks",
            "Table 1: Dice is better in eight of nine cells and equal in one (+0 to +2.3 points), and folding falls by "
            "32 to 92 %. Figure 3: validation Dice over the training. Figure 7: label by label. Figures 2, 8, 9: a "
            "pair whose fields are smoother. On the paper's sets VoxelMorph is its own, of 274,387 parameters, on "
            "others that of VoxelMorph's paper, of 300,547. The paper says that it counts folding over the foreground, "
            "and so does this table; its code counts over all voxels.",
            _each(_with_syn),
            COLUMNS,
            {"training": TRAINING, "labels": LABELS, "fields": Figure(fields), "distance": DISTANCE},
        ),
        "table2": Table(
            "Settings for CT: 3 steps on MSE with VoxelMorph, 5 steps on LNCC with TransMorph",
            "Table 2, abdomen CT: a small gain for VoxelMorph, a larger one for TransMorph.",
            {
                f"{data}/{_as_theirs(network, data)}": _experiment(data, _as_theirs(network, data), {name: way})
                for data in SETS
                for network, (name, way) in CT.items()
            },
            COLUMNS,
            {"training": TRAINING},
        ),
        "self-training": Table(
            "Labels made on the fly, and labels of a network that was trained before",
            "Figure 3: self-training lags behind, refined labels help it, and guidance is best.",
            _each(partial(_experiment, ways=TAUGHT, baseline="guided")),
            COLUMNS,
            {"training": TRAINING, "labels": LABELS},
        ),
        "optimisers": Table(
            "How the label is made",
            "Tables 4 and 5: the full-resolution field by Adam is better than the downsampled one and than a network.",
            _each(_optimisers),
            COLUMNS,
            {"training": TRAINING, "optimisers": DOTS},
        ),
        "steps": Table(
            "How many steps make the label",
            "Figure 5: 5 to 10 are best, more bring nothing. Guided is 10 steps.",
            _each(partial(_experiment, ways=STEPS, baseline="guided")),
            COLUMNS,
            {"steps": DOTS},
        ),
        "epsilon": Table(
            "The ε of the Adam that makes the label: how weak a slope may be and still count as much as a strong one",
            "This is not shown; guided has its authors' ε at their images' size. With ε × 10 flat tissue moves less "
            "in a label, and edges make up more of it.",
            _each(partial(_experiment, ways={"guided, ε × 10": DAMPED})),
            COLUMNS,
            {"training": TRAINING, "labels": LABELS},
        ),
        "norms": Table(
            "What guess and label are compared by: mean squares, or strains as well, at several λ and rates",
            "This is not shown; the paper compares by mean squares. With strains a network should lose no accuracy to "
            "unsupervised training at its best λ and rate, and fold less. λ weighs the regularity of the energy, or of "
            "the label's. Tests are by person. Under Choice stands the arm of each way that validates best.",
            _each(_norms),
            COLUMNS,
            {
                "training": TRAINING,
                "choice": CHOICE,
                "smoothness": Figure(partial(traded, across=SDLOGJ, up=DICE, ways=NORMS)),
            },
            unit="subject",
        ),
        "intensity": Table(
            "Less guidance: seldom, blended with the energy of the guess, or on some pairs only",
            "Figure 4: the less guidance, the lower Dice, in all three ways. An epoch is a 500th of the training, as "
            "there; on sets that learn by a few updates a 50th.",
            _each(_intensity),
            COLUMNS,
            {"intensity": DOTS},
        ),
        "refinement": Table(
            "What the networks' answers become by 10 and 50 steps of descent",
            "This is not shown; a network that learned from refined answers should be a better start for refinement.",
            _each(),
            COLUMNS,
            {"refinement": REFINEMENT},
        ),
        "optimiser": Table(
            "The optimiser alone, from an untrained network and from random parameters",
            "Figure 6: Dice 0.426 to 0.544 from a network with random weights, and to 0.510 from random parameters.",
            _each(networks=("voxelmorph",)),
            COLUMNS,
            {"optimiser": STARTS},
        ),
        "landscape": Table(
            "The loss around the weights",
            "Figure 10: smoother with guidance, for all three networks, and than with self-training, which it has of "
            "TransMorph. There each network is seen by the loss that it was trained with; here by one energy, LNCC and "
            "diffusion, so that they can be compared.",
            _each() | _each(partial(_experiment, ways={"self-training": PSEUDO}), ("transmorph",)),
            COLUMNS,
            {"landscape": Figure(contours, partial(landscape, energy=ENERGY))},
        ),
    },
)
