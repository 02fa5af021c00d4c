"""The front door: the names that `pullback` has, loaded when first used, and where each lives.

Methods are imported from their modules: `from pullback.methods.pair.convex_adam import ConvexAdam`.
"""

from .alignment import Alignment as Alignment, Pair as Pair, Register as Register
from .data import (
    BrainPhantom as BrainPhantom,
    Learn2Reg as Learn2Reg,
    PairFolder as PairFolder,
    Synthesis as Synthesis,
    Synthetic as Synthetic,
    normalised as normalised,
)
from .energies import (
    LNCC as LNCC,
    MI as MI,
    MIND as MIND,
    MSE as MSE,
    NCC as NCC,
    NGF as NGF,
    NMI as NMI,
    SSIM as SSIM,
    Bending as Bending,
    Diffusion as Diffusion,
    Energy as Energy,
    Kinetic as Kinetic,
    SoftDice as SoftDice,
    SoftHausdorff as SoftHausdorff,
)
from .errors import InputError as InputError
from .example import Example as Example, PointPair as PointPair, Supervision as Supervision
from .files import (
    Merge as Merge,
    read_channels as read_channels,
    read_image as read_image,
    read_labels as read_labels,
    read_merge as read_merge,
    read_points as read_points,
    read_series as read_series,
    read_transform as read_transform,
    write as write,
)
from .group import Group as Group, GroupAlignment as GroupAlignment
from .methods.pair.classical import (
    ACCURATE as ACCURATE,
    BALANCED as BALANCED,
    FAST as FAST,
    register as register,
)
from .metrics import (
    CentroidError as CentroidError,
    Correlation as Correlation,
    Dice as Dice,
    EndPointError as EndPointError,
    Folding as Folding,
    HausdorffDistance as HausdorffDistance,
    InverseError as InverseError,
    LandmarkError as LandmarkError,
    SDLogJ as SDLogJ,
    StructuralSimilarity as StructuralSimilarity,
)
from .networks import Network as Network
from .numerics.kernel import Gaussian as Gaussian, Sobolev as Sobolev
from .solvers import (
    CoupledConvex as CoupledConvex,
    DeformableStage as DeformableStage,
    Descend as Descend,
    FieldAdam as FieldAdam,
    InstanceOptimisation as InstanceOptimisation,
    Joint as Joint,
    Levels as Levels,
    LinearStage as LinearStage,
    chain as chain,
)
from .space import (
    Affine as Affine,
    BSpline as BSpline,
    Composite as Composite,
    Displacement as Displacement,
    Flow as Flow,
    Geodesic as Geodesic,
    Grid as Grid,
    Image as Image,
    Labels as Labels,
    Motion as Motion,
    Points as Points,
    Series as Series,
    ThinPlate as ThinPlate,
    Transform as Transform,
    Velocity as Velocity,
    centroids as centroids,
    inverted as inverted,
    keypoints as keypoints,
    normals as normals,
    pull as pull,
    push as push,
)
from .stats import Stage as Stage, Stats as Stats
from .study.evaluate import evaluate as evaluate
from .study.recipe import Recipe as Recipe
from .study.run import Run as Run, load_run as load_run, run as run
from .study.train import train as train
from .study.trained import Trained as Trained
from .training import (
    Cosine as Cosine,
    Cyclical as Cyclical,
    KnownTransform as KnownTransform,
    PairEvaluation as PairEvaluation,
    Plateau as Plateau,
    Player as Player,
    Poly as Poly,
    Steps as Steps,
    Training as Training,
    UncertaintyWeighted as UncertaintyWeighted,
    Unsupervised as Unsupervised,
    align as align,
    seeded as seeded,
)
from .workflows.preparation import Preparation as Preparation
from .workflows.prepare import prepare as prepare

__version__: str
