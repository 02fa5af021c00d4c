"""The front door: the names that `pullback` has, loaded when first used, and where each lives."""

from .alignment import Alignment as Alignment
from .alignment import Pair as Pair
from .alignment import Register as Register
from .alignment import Supervision as Supervision
from .data import (
    Cohort as Cohort,
)
from .data import (
    Learn2Reg as Learn2Reg,
)
from .data import (
    PairFolder as PairFolder,
)
from .data import (
    Synthesis as Synthesis,
)
from .data import (
    Synthetic as Synthetic,
)
from .data import (
    normalised as normalised,
)
from .energies import (
    LNCC as LNCC,
)
from .energies import (
    MI as MI,
)
from .energies import (
    MIND as MIND,
)
from .energies import (
    MSE as MSE,
)
from .energies import (
    NCC as NCC,
)
from .energies import (
    NGF as NGF,
)
from .energies import (
    NMI as NMI,
)
from .energies import (
    SSIM as SSIM,
)
from .energies import (
    Bending as Bending,
)
from .energies import (
    Diffusion as Diffusion,
)
from .energies import (
    Energy as Energy,
)
from .energies import (
    SoftDice as SoftDice,
)
from .energies import (
    SoftHausdorff as SoftHausdorff,
)
from .errors import InputError as InputError
from .files import (
    Merge as Merge,
)
from .files import (
    read_channels as read_channels,
)
from .files import (
    read_image as read_image,
)
from .files import (
    read_labels as read_labels,
)
from .files import (
    read_merge as read_merge,
)
from .files import (
    read_points as read_points,
)
from .files import (
    read_transform as read_transform,
)
from .files import (
    write as write,
)
from .methods.pair.classical import (
    ACCURATE as ACCURATE,
)
from .methods.pair.classical import (
    BALANCED as BALANCED,
)
from .methods.pair.classical import (
    FAST as FAST,
)
from .methods.pair.classical import (
    Classical as Classical,
)
from .methods.pair.classical import (
    register as register,
)
from .methods.pair.convex_adam import ConvexAdam as ConvexAdam
from .methods.pair.correlated import Correlated as Correlated
from .methods.pair.cyclical import Cyclical as Cyclical
from .methods.pair.ofg import (
    EveryKth as EveryKth,
)
from .methods.pair.ofg import (
    Guided as Guided,
)
from .methods.pair.ofg import (
    GuidedByNetworks as GuidedByNetworks,
)
from .methods.pair.ofg import (
    Portion as Portion,
)
from .methods.pair.ofg import (
    Sometimes as Sometimes,
)
from .methods.pair.self_training import SelfTraining as SelfTraining
from .methods.pair.transmorph import TransMorph as TransMorph
from .methods.pair.vit_v_net import ViTVNet as ViTVNet
from .methods.pair.voxelmorph import VoxelMorph as VoxelMorph
from .methods.points.matched import match_points as match_points
from .methods.pose.cross_ngf import CrossNGF as CrossNGF
from .methods.pose.initialise import Initialise as Initialise
from .metrics import (
    CentroidError as CentroidError,
)
from .metrics import (
    Correlation as Correlation,
)
from .metrics import (
    Dice as Dice,
)
from .metrics import (
    EndPointError as EndPointError,
)
from .metrics import (
    Folding as Folding,
)
from .metrics import (
    HausdorffDistance as HausdorffDistance,
)
from .metrics import (
    LandmarkError as LandmarkError,
)
from .metrics import (
    SDLogJ as SDLogJ,
)
from .metrics import (
    StructuralSimilarity as StructuralSimilarity,
)
from .solvers import (
    CoupledConvex as CoupledConvex,
)
from .solvers import (
    Deformed as Deformed,
)
from .solvers import (
    Descend as Descend,
)
from .solvers import (
    Levels as Levels,
)
from .solvers import (
    Optimised as Optimised,
)
from .solvers import (
    Posed as Posed,
)
from .solvers import (
    chain as chain,
)
from .space import (
    Affine as Affine,
)
from .space import (
    BSpline as BSpline,
)
from .space import (
    Composite as Composite,
)
from .space import (
    Displacement as Displacement,
)
from .space import (
    Grid as Grid,
)
from .space import (
    Image as Image,
)
from .space import (
    Labels as Labels,
)
from .space import (
    Motion as Motion,
)
from .space import (
    Points as Points,
)
from .space import (
    ThinPlate as ThinPlate,
)
from .space import (
    Transform as Transform,
)
from .space import (
    Velocity as Velocity,
)
from .space import (
    inverted as inverted,
)
from .space import (
    pull as pull,
)
from .space import (
    push as push,
)
from .study.evaluate import evaluate as evaluate
from .study.preparation import Preparation as Preparation
from .study.prepare import prepare as prepare
from .study.recipe import Recipe as Recipe
from .study.run import Run as Run
from .study.run import load_run as load_run
from .study.run import run as run
from .study.trained import Trained as Trained
from .training import (
    Cosine as Cosine,
)
from .training import (
    Plateau as Plateau,
)
from .training import (
    Poly as Poly,
)
from .training import (
    Told as Told,
)
from .training import (
    Training as Training,
)
from .training import (
    UncertaintyWeighted as UncertaintyWeighted,
)
from .training import (
    Unsupervised as Unsupervised,
)
from .training import (
    align as align,
)
from .training import (
    seeded as seeded,
)
from .training import (
    train as train,
)
