"""Every published method keeps the promises of `pullback.testing`, problems × methods."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import pullback.methods
from pullback.energies import MSE, Diffusion
from pullback.methods.group.atlas import AtlasEvaluation, AtlasRounds, GroupwiseSupervision, RunningMeans
from pullback.methods.group.conditional import ConditionalAtlas, TemplateGenerator
from pullback.methods.group.embedding import Embedding
from pullback.methods.group.kinship import Kin
from pullback.methods.group.onto_template import OntoTemplate
from pullback.methods.group.section_features import Features
from pullback.methods.group.stack_solution import SectionMatch, StackSolution
from pullback.methods.group.structural_types import Typed, Types
from pullback.methods.group.template import Placed, Template
from pullback.methods.labels.consensus import Consensus
from pullback.methods.labels.deep_staple import TrustedSegmenter
from pullback.methods.method import Method, Paper, methods
from pullback.methods.pair.classical import FAST, Classical
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.cross_fitting import SegmentThenFuse
from pullback.methods.pair.cyclical import FieldLabels, WithRefinement
from pullback.methods.pair.ddmr import GeneralisedDice, PooledUNet, SoftmaxWeighted, Transferred
from pullback.methods.pair.decomposed import PhasedAlignment
from pullback.methods.pair.determinant_and_curl import Prescription
from pullback.methods.pair.feature_fusion import RunFeatures
from pullback.methods.pair.feature_registration import FeatureRegistration, Refinement
from pullback.methods.pair.growing_mask import Growth
from pullback.methods.pair.image_shooting import Shooting, Shot
from pullback.methods.pair.lddmm_gan import Coarser, Discriminator
from pullback.methods.pair.magnified import Magnified
from pullback.methods.pair.masn import LocalAlignment
from pullback.methods.pair.ncr_net import MarkedAlignment
from pullback.methods.pair.non_correspondence import InTwoPhases, LocalCorrelation
from pullback.methods.pair.ofg import EveryKth, Guided, GuidedByFittedNetworks, GuidedByNetworks, Mixture, Portion
from pullback.methods.pair.patch_contrast import PatchAlignment
from pullback.methods.pair.pdd_net import InPhases, MeanField, Obelisk, Propagator
from pullback.methods.pair.posterior import LogDeviation, Posterior, PosteriorEnergy
from pullback.methods.pair.pwc_net import FlowAlignment, FlowDecoder
from pullback.methods.pair.self_training import SelfTraining
from pullback.methods.pair.strain import Ramp, Relative
from pullback.methods.pair.superwarp import WarmUp
from pullback.methods.pair.transmorph import TransMorph
from pullback.methods.pair.uncertainty import PosteriorAlignment
from pullback.methods.pair.vit_v_net import ViTVNet
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.methods.points.augment import (
    Affines,
    Chosen,
    NearTruth,
    RandomField,
    Rigid,
    SyntheticClouds,
    from_landmarks,
)
from pullback.methods.points.coherent_drift import (
    CoherentDrift,
    Correspondence,
    DriftState,
    LabelledClouds,
    SimilarityPose,
)
from pullback.methods.points.cyclical import PointLabels
from pullback.methods.points.evaluation import LandmarkEvaluation
from pullback.methods.points.graph_propagation import GraphPropagation, Match, RegisterClouds, untrained
from pullback.methods.points.organ_kernel import OrganKernel
from pullback.methods.points.shared_organs import SharedOrgans
from pullback.methods.points.supervision import ByMetric, PointDistance
from pullback.methods.pose.cross_ngf import CrossNGF, Level, Reference
from pullback.methods.pose.freedom import Freedom
from pullback.methods.pose.initialise import Initialise
from pullback.methods.pose.radial import Radial
from pullback.methods.pose.radial_order import Ordered, SliceOrder
from pullback.methods.pose.radial_to_volume import BinarySearch, LocatedRadial, RadialToVolume
from pullback.methods.pose.rician_motion import Corrected, MotionCorrection, Posed
from pullback.methods.pose.slice_identification import Identifier, Ranking
from pullback.methods.pose.slice_likeness import Likeness
from pullback.methods.pose.slice_search import Found
from pullback.methods.pose.slice_to_volume import LocatedSlices, SliceToVolume, StartSearch
from pullback.methods.pose.tissue_intensities import Shared
from pullback.methods.pose.tissue_model import NoisyFrames, TissueModel
from pullback.solvers import BeliefPropagation, Converged, Descend, InstanceOptimisation, Levels, LinearStage
from pullback.space import Motion
from pullback.testing import (
    check_augmentation,
    check_coverage,
    check_register,
    check_supervision,
    point_problems,
    problems,
    public_classes,
)
from pullback.testing.clouds import POINT_PROBLEMS
from pullback.testing.problems import PROBLEMS
from pullback.training import IndependentAffines, RandomFlips, seeded


@dataclass(frozen=True)
class Case:
    """A register as it is checked: with fewer steps than its defaults, and small networks.

    Attributes:
        make: makes it, for so many dimensions.
        solves: problems by name.
        solves3: those in 3-D, where they are others.
        options: of `check_register`.
    """

    make: Callable[[int], Callable]
    solves: tuple[str, ...]
    solves3: tuple[str, ...] | None = None
    options: dict = None


def network(kind: type, **sizes) -> Case:
    """Not trained yet, so that it knows nothing but to stay; in float64 it rounds as in float32."""

    def make(ndim: int):
        with seeded(5):
            return kind(ndim=ndim, **sizes)

    return Case(make, ("identity",), options={"rounding": 1e-3})


REFINE = InstanceOptimisation(MSE() + Diffusion(), Descend(2, 0.1))


def unrefined(ndim: int) -> WithRefinement:
    with seeded(5):
        return WithRefinement(partial(VoxelMorph, ndim, encoder=(4, 8), decoder=(8, 8, 8, 4)), REFINE)


FIELD = replace(FAST.deformable, levels=Levels(coarsest=12), steps=(60, 40, 20))
RIGID = LinearStage(Motion.rigid, solver=Descend(40, 0.5, until=Converged()))
CHEAP = tuple(guess for guess in Initialise().guesses if guess[0] in ("header", "masses"))
FEW = CrossNGF(rotations=(300, 100, 30, 0), voxels=30_000)


def solved(name: str, *but: str) -> tuple[str, ...]:
    return tuple(problem for problem in methods()[name].solves if problem not in but)


REGISTERS = {
    "Classical": Case(lambda _: Classical(None, (("rigid", RIGID),), FIELD), solved("classical")),
    "Classical, aligned": Case(
        lambda _: Classical(None, (), FIELD), ("identity", "smooth"), ("identity",), {"energy": FIELD.energy}
    ),
    "ConvexAdam": Case(lambda _: ConvexAdam(), solved("convex-adam")),
    # a search: of so few rotations in 3-D it is left some 7° off, and by whole voxels at best
    "CrossNGF": Case(lambda _: FEW, ("identity",), (), {"rounding": 1e-3}),
    # so few steps leave it on its way, where rounding has parted the two by up to a third of a voxel
    "Initialise": Case(
        lambda _: Initialise(CHEAP, search=None, random=6, solver=Descend(25, 0.6, last=0.3)),
        solved("initialise"),
        None,
        {"rounding": 0.6},
    ),
    "VoxelMorph": network(VoxelMorph, encoder=(4, 8), decoder=(8, 8, 8, 4)),
    "ViTVNet": network(ViTVNet, hidden=24, blocks=1, heads=2, mlp=16),
    "TransMorph": network(TransMorph, embed=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2)),
    "PooledUNet": network(PooledUNet, widths=(4, 8)),
    "FeatureRegistration": network(FeatureRegistration, widths=(4, 8, 8)),
    "WithRefinement": Case(unrefined, ("identity",), options={"rounding": 1e-3}),
}


DESCENTS = ("Classical", "Classical, aligned", "Initialise")
"""Registers that descend for seconds in 3-D, where by day only some problems are theirs."""
BY_DAY = ("identity", "mask", "anisotropic", "thin")


def marks(key: str, name: str, ndim: int) -> tuple:
    if ndim == 2:
        return ()
    return (pytest.mark.nightly,) if key in DESCENTS and name not in BY_DAY else (pytest.mark.slow,)


def crossed() -> list:
    """Each register with each problem; in 3-D it takes four times as long."""
    return [
        pytest.param(case, name, ndim, id=f"{key}-{name} {ndim}-D", marks=marks(key, name, ndim))
        for key, case in REGISTERS.items()
        for name in PROBLEMS
        for ndim in (2, 3)
    ]


@pytest.mark.parametrize(("case", "name", "ndim"), crossed())
def test_register(case, name, ndim):
    solves = case.solves if ndim == 2 or case.solves3 is None else case.solves3
    (problem,) = problems(name, ndim=ndim)
    options = case.options or {}
    if "rounding" not in options and name not in solves:  # a descent that finds nothing is parted further by rounding
        options = {**options, "rounding": problem.within}
    check_register(case.make(ndim), problem, solves=name in solves, **options)


CLOUDS = {
    "GraphPropagation": GraphPropagation(),
    "GraphPropagation, features told": partial(GraphPropagation(), network=untrained(3)),
}


@pytest.mark.parametrize("problem", point_problems(), ids=str)
@pytest.mark.parametrize("register", CLOUDS.values(), ids=CLOUDS)
def test_register_of_points(register, problem):
    check_register(register, problem, rounding=1e-3)


@pytest.mark.filterwarnings("ignore:VariationalPrinciple. the object touches the border")
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly) if name == "lddmm" else name  # metamorphosis has its shooting
        for name, method in methods().items()
        if method.solves
    ],
)
def test_a_method_solves_what_it_says(name):
    """As it is, with all its steps, in 2-D or for clouds."""
    method = methods()[name]
    known = point_problems(*method.solves) if "points" in method.aligns else problems(*method.solves, ndim=2)
    for problem in known:
        assert problem.distance(problem.ask(method.register)) <= problem.within, str(problem)


def test_methods_solve_problems_that_there_are():
    for name, method in methods().items():
        assert set(method.solves) <= (PROBLEMS | POINT_PROBLEMS).keys(), name
        assert not method.solves or method.register is not None, name


SMALL = partial(VoxelMorph, 3, encoder=(4, 8), decoder=(8, 8, 8, 4))


def supervisions() -> list:
    """One of each kind; what teaches or makes labels is a small network with weights of its own."""
    with seeded(3):
        teacher, along, fitted = SMALL(), GuidedByNetworks(SMALL), GuidedByFittedNetworks(SMALL, steps=2)
    every = [Guided(), Guided(coarser=2), SelfTraining(teacher), SelfTraining(teacher, Descend(2, 0.1)), along, fitted]
    return [*every, Mixture(Guided(), Portion(0.5)), Mixture(Guided(), EveryKth(2, 4))]


@pytest.mark.parametrize("supervision", supervisions(), ids=lambda s: type(s).__name__)
def test_supervision(supervision):
    (problem,) = problems("smooth", ndim=3)
    check_supervision(supervision, SMALL, problem.pair)


MATCH = Match(BeliefPropagation(8, 5, 3, sharpness=0.5))


@pytest.mark.parametrize(
    "supervision", [PointDistance(MATCH), ByMetric(MATCH, neighbours=5)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("chosen", [False, True])
def test_supervision_of_points(supervision, chosen):
    (problem,) = point_problems("missing")
    pair = replace(problem.pair, chosen=torch.arange(20)) if chosen else problem.pair
    check_supervision(supervision, lambda: untrained(0, 1), pair)


AUGMENTATIONS = {
    "Affines": Affines(),
    "Rigid": SyntheticClouds(Rigid()),
    "RandomField": SyntheticClouds(RandomField()),
    "NearTruth": NearTruth(),
    "Chosen": Chosen(50),
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_augmentation_of_points(augment):
    check_augmentation(augment, point_problems("smooth")[0].pair)


def test_augmentation_by_landmarks():
    pair = point_problems("smooth")[0].pair
    check_augmentation(
        from_landmarks, replace(pair, fixed_landmarks=pair.fixed, moving_landmarks=pair.truth), random=False
    )


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("augment", [IndependentAffines(), RandomFlips()], ids=lambda a: type(a).__name__)
def test_augmentation_of_images(ndim, augment):
    check_augmentation(augment, problems("smooth", ndim=ndim)[0].pair)


EXCUSED = {
    Posterior: "a distribution; test_uncertainty.py says what its samples and densities are",
    PosteriorEnergy: "a function of a deviation, no energy of an alignment; test_uncertainty.py has its closed forms",
    LogDeviation: "what a descent moves in WithPosterior, which is checked",
    PosteriorAlignment: "the answer of PosteriorNetwork, which is checked",
    Method: "a description; tests/test_commands.py reads it",
    Paper: "a description; tests/test_commands.py cites it",
    Types: "no register: it asks for types; test_structural_types.py says when it answers one",
    Typed: "the answer of Types; test_structural_types.py says what it holds",
    Embedding: "coordinates; test_structural_types.py holds them against scikit-learn",
    Kin: "numbers of relatives; test_structural_types.py says what they are",
    Features: "keypoints of a section; test_mito.py says of which",
    SectionMatch: "how two sections match; test_mito.py says when they do not",
    StackSolution: "the maps of a stack, of which Mito's answer is made; test_mito.py holds its laws",
    OntoTemplate: "two registers after each other; test_structural_types.py says what they remove",
    Prescription: "no register: what a map can have; test_determinant_and_curl.py holds it against maps",
    Refinement: "settings of FeatureRegistration, which is checked with them",
    Reference: "a part of CrossNGF, which is checked; its map is held against sums over shifts in test_cross_ngf.py",
    Level: "a part of CrossNGF, which is checked",
    Magnified: "a part of MASN, which is checked; test_magnified.py says what it sees",
    LocalAlignment: "the answer of MASN in training, which is checked; test_masn.py says what it holds",
    RegisterClouds: "a part of GraphPropagation, which is checked",
    Coarser: "a kind of field for networks; test_lddmm_gan.py says that it is the same motion",
    Discriminator: "no register: a part of Adversarial, which is checked; test_lddmm_gan.py says what it sees",
    FieldLabels: "no register: it makes labels in the rounds of test_cyclical.py",
    PointLabels: "no register: it makes labels in the rounds of test_points.py",
    LandmarkEvaluation: "an evaluation; test_points.py says what it measures",
    CoherentDrift: "a part of MOBCPD, which is checked; test_coherent_drift.py holds it against pycpd",
    Correspondence: "a part of MOBCPD; test_coherent_drift.py holds it against dense probabilities",
    DriftState: "a state of CoherentDrift",
    LabelledClouds: "what CoherentDrift sees of two clouds",
    OrganKernel: "a covariance; test_organ_kernel.py holds it against equation 3",
    SharedOrgans: "points that take part in MOBCPD; test_mo_bcpd.py says which",
    SimilarityPose: "a part of DriftState; test_coherent_drift.py finds it to rounding",
    Shot: "a path of images, whose laws test_metamorphosis.py holds",
    Shooting: "a part of Metamorphosis, which is checked",
    Growth: "a part of Metamorphosis; test_metamorphosis.py says how its masks grow",
    PhasedAlignment: "the answer of Decomposed, which is checked; test_decomposed.py says what it holds",
    SegmentThenFuse: "a procedure of several trainings; test_feature_fusion.py says who learns from whom",
    RunFeatures: "no register: features for ConvexAdam; test_feature_fusion.py says which",
    Obelisk: "a part of PDDNet, which is checked; test_pdd_net.py has it by hand",
    MeanField: "a part of PDDNet; test_pdd_net.py holds it against scipy",
    Propagator: "PDDNet with one image kept; test_pdd_net.py says that it answers the same to the last bit",
    InPhases: "a procedure of two trainings; test_pdd_net.py says on which pairs",
    FlowDecoder: "a part of PWCNet, which is checked",
    FlowAlignment: "the answer of PWCNet; test_pwc_net.py says what its levels mean",
    MarkedAlignment: "the answer of NCRNet, which is checked; test_ncr_net.py says what its levels are",
    LocalCorrelation: "a distance per voxel; test_non_correspondence.py holds it against LNCC",
    InTwoPhases: "a procedure of two trainings; test_non_correspondence.py says with which β",
    PatchAlignment: "the answer of PCSwinMorph; test_pc_swinmorph.py says what its ways and patches are",
    Transferred: "a procedure of two trainings; test_ddmr.py says which weights rest",
    SoftmaxWeighted: "no register: weights of losses; test_ddmr.py says what becomes of them",
    WarmUp: "a procedure of two trainings; test_superwarp.py says what moves in them",
    Consensus: "the answer of a vote; test_consensus.py says what it holds",
    TrustedSegmenter: "no register: it segments one image; test_deep_staple.py says what it learns to trust",
    Placed: "linear maps of a group; test_template.py says that their mean is the identity",
    Template: "the answer of TemplateBuilder, which is checked; test_template.py says what it holds",
    ConditionalAtlas: "a network of scans and ages, not of pairs; test_atlas.py trains it",
    TemplateGenerator: "a part of ConditionalAtlas; test_atlas.py says what it learns",
    GroupwiseSupervision: "its running mean changes by each scan that it sees; test_atlas.py has it in closed form",
    AtlasEvaluation: "an evaluation; test_atlas.py says what it measures",
    RunningMeans: "a part of AtlasEvaluation; test_atlas.py says what it measures",
    AtlasRounds: "a procedure of several trainings; test_atlas.py says where templates end",
    TissueModel: "a head as maps; test_rician_motion.py says what is no such thing",
    NoisyFrames: "the voxels that MotionCorrection looks at; test_rician_motion.py says which frames it refuses",
    Shared: "what frames share; test_rician_motion.py says that the posterior never falls by it",
    Posed: "a posterior of motions; test_rician_motion.py holds its slopes against its values",
    MotionCorrection: "no register of a pair, but of a series; test_rician_motion.py says what it finds",
    Corrected: "the answer of MotionCorrection",
    Identifier: "no register: the protocol of what compares slices with plates",
    Ranking: "the answer of an identifier; test_slice_identification.py says what it holds",
    Found: "the answer of TemplateSearch; test_slice_search.py finds known places",
    SliceToVolume: "no register of pairs: it places several slices; test_slice_to_volume.py says where",
    StartSearch: "a part of SliceToVolume",
    LocatedSlices: "the answer of SliceToVolume; test_slice_to_volume.py says what it holds",
    Likeness: "the energy that SliceToVolume descends",
    Freedom: "curvatures; test_slice_to_volume.py says which directions are free",
    Radial: "planes through an axis; test_radial.py holds what is made of them against closed forms",
    SliceOrder: "an order of radial slices; test_radial.py tries all of them",
    Ordered: "the answer of ordered; test_radial.py says when it is ambiguous",
    RadialToVolume: "no register of pairs: it places radial slices; test_slice_to_volume.py says where",
    LocatedRadial: "the answer of RadialToVolume; test_slice_to_volume.py says what it holds",
    BinarySearch: "a search over an angle; test_slice_to_volume.py holds it against its last step",
    GeneralisedDice: "an energy by labels, as SoftDice; test_ddmr.py holds it against its formula",
}


def checked_by_its_own_test() -> set[type]:
    """Classes that the test of their own module, `test_NAME.py`, holds against a contract of `pullback.testing`."""
    found = set()
    for kind in public_classes(pullback.methods):
        path = Path(__file__).with_name(f"test_{kind.__module__.rpartition('.')[2]}.py")
        text = path.read_text() if path.is_file() else ""
        if re.search(rf"\bcheck_\w+\({kind.__name__}\b", text):
            found.add(kind)
    return found


def test_every_class_is_checked_or_excused():
    registers = [type(case.make(2)) for case in REGISTERS.values()]
    parts = [Match, EveryKth, Portion, Relative, Ramp, Rigid, RandomField, GraphPropagation]
    taught = [type(each) for each in (*supervisions(), PointDistance(), ByMetric(), *AUGMENTATIONS.values())]
    check_coverage(pullback.methods, {*registers, *parts, *taught, *checked_by_its_own_test()}, EXCUSED)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
@pytest.mark.parametrize("key", ["Classical", "ConvexAdam", "VoxelMorph"])
def test_on_an_accelerator_as_on_the_processor(key):
    device, (problem,) = torch.accelerator.current_accelerator(), problems("shift", ndim=3)
    register = REGISTERS[key].make(3)
    here = problem.ask(register)
    if isinstance(register, torch.nn.Module):
        register.to(device)
    there = replace(problem, pair=problem.pair.to(device)).ask(register).to(torch.device("cpu"))
    assert float(problem.apart(here, there).mean()) < problem.within / 2
