"""MITO: sections of a stack are aligned by keypoints on masks, such as those of mitochondria.

Goyal et al., Faster EM image alignment with mitochondria (MITO), WBIR 2022: the centres of the components of a mask are
the keypoints of a section; their descriptors are matched with those of the next section, and a map is fitted to the
matches. Few keypoints, and each on distinctive tissue: that is quick.

The paper is silent on which point of a mitochondrion is taken (here the centroid), on thresholds, and on how errors
along the stack are kept small. It fits homographies, which bend and drift; here maps are rigid unless told otherwise.
Sections up to three apart are compared, and all maps are made consistent at once. Descriptors are polar patches, which
need no direction; OpenCV's (ORB, BRISK, FREAK) and its detectors (ORB, BRISK, FAST) stand beside them. Without masks
keypoints are corners.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.special import betainc
from torch import Tensor

from pullback.errors import InputError
from pullback.group import Group, GroupAlignment
from pullback.methods.group.opencv_features import (
    DESCRIPTORS,
    DETECTORS,
    by_brute_force,
    by_flann,
    describe,
    detect,
    keypoints_at,
    places_of,
)
from pullback.methods.group.section_features import (
    Features,
    alike,
    corners,
    described,
    mask_centres,
    of_bits,
    within,
)
from pullback.methods.group.stack_solution import SectionMatch, StackSolution, solved
from pullback.methods.method import Method, Paper
from pullback.numerics.random import make_generator
from pullback.numerics.ransac import MODELS, distances, fewest, ransac
from pullback.numerics.synchronise import Edge
from pullback.space import Grid, Image, Labels
from pullback.stats import Stats

POLAR, CENTRES, CORNERS = "polar", "centres", "corners"
MUTUAL, FLANN = "mutual", "flann"
RATIO = 0.8  # of FLANN's distances, after Lowe (2004)
CHANCE = 1e-2
"""Expected number of maps through keypoints at random by which as many agree; more, and the match is none."""
STRETCHED = 4.0  # of an area, by more than which no section is deformed


@dataclass(frozen=True)
class Mito:
    """Alignment of the sections of a stack by keypoints.

    Attributes:
        detector: of keypoints: `"centres"` of a mask's components; `"corners"` of the image; `"orb"`, `"brisk"` or
            `"fast"` by OpenCV; "" takes centres where a section has labels, else corners.
        descriptor: of their surroundings: `"polar"`; `"orb"`, `"brisk"` or `"freak"` by OpenCV.
        matcher: `"mutual"`, the nearest to each other; or `"flann"`, of OpenCV's descriptors.
        model: of the map between two sections: `"rigid"`, `"similarity"`, `"affine"` or `"homography"`.
        threshold: px within which matches agree.
        least: matches that must agree between sections that are not neighbours, unless nothing else joins them.
        most: keypoints of a section; the largest or most distinct are kept; all of 0.
        area: px, of a component at least.
        radius: px, of the surroundings that polar patches see.
        masked: whether other keypoints than centres are sought where labels are alone.
        reference: the section that stays where it is, counted from 0; None takes the middle one of all that match.
        seed: of the draws.

    Raises:
        InputError: a name that is not known, or a number out of its range.
    """

    detector: str = ""
    descriptor: str = POLAR
    matcher: str = MUTUAL
    model: str = "rigid"
    threshold: float = 5.0
    least: int = 15
    most: int = 500
    area: int = 50
    radius: float = 64.0
    masked: bool = False
    reference: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("detector", self.detector, ("", CENTRES, CORNERS, *DETECTORS)),
            ("descriptor", self.descriptor, (POLAR, *DESCRIPTORS)),
            ("matcher", self.matcher, (MUTUAL, FLANN)),
            ("model", self.model, MODELS),
        ):
            if value not in known:
                raise InputError(f"{name}: one of {', '.join(filter(None, known))} expected, got {value}")
        if self.descriptor == "orb" and self.detector != "orb":
            raise InputError("descriptor=orb describes keypoints of detector=orb alone, whose direction it needs")
        if self.descriptor == POLAR and self.matcher == FLANN:
            raise InputError("matcher=flann is of bits: descriptor=orb, brisk or freak")
        if min(self.threshold, self.radius) <= 0 or min(self.least, self.most, self.area, self.seed) < 0:
            raise InputError("threshold and radius above 0, least, most, area and seed from 0 on expected")

    def __call__(self, group: Group) -> GroupAlignment:
        """Return the maps from the world of one section to each section of a stack, `Group.chain(sections, reach=3)`.

        Sections are compared as the group's edges say. Its labels are the masks.

        Raises:
            InputError: sections that are not flat, one without enough keypoints, or one that matches no other.
        """
        names = [f"section {n}" for n in range(len(group.images))]
        known = group.labels or (None,) * len(names)
        every = [self.features(image, mask, name) for image, mask, name in zip(group.images, known, names, strict=True)]
        matches = {(i, j): self.match(every[i], every[j], i, j) for i, j in group.edges}
        found = self.solve(matches, [image.grid for image in group.images])
        if found.unmatched:
            raise InputError("; ".join(found.failures(names)))
        numbers = {"least matches": float(min((match.agree for match in matches.values()), default=0))}
        if found.loop_error is not None:
            numbers["loop error px"] = found.loop_error
        return GroupAlignment(group, found.transforms(self.model), Stats(numbers=numbers))

    def features(self, image: Image, labels: Labels | None = None, name: str = "section") -> Features:
        """Return the keypoints of a section.

        Raises:
            InputError: an image that is not flat, labels on another grid, no mask for centres, or too few keypoints.
        """
        if image.grid.ndim != 2 or len(image.data) != 1:
            raise InputError(f"{name}: one flat section expected, got {image}")
        if labels is not None and labels.grid.shape != image.grid.shape:
            raise InputError(
                f"{name}: its mask has {_told(labels.grid)} px, and it {_told(image.grid)}; they must be alike"
            )
        detector = self.detector or (CORNERS if labels is None else CENTRES)
        if detector == CENTRES and labels is None:
            raise InputError(f"{name}: detector=centres needs a mask, and it has none")
        found = self._described(detector, image, labels)
        few = fewest(2, self.model)
        if len(found) < few:
            what = "components in its mask" if detector == CENTRES else "keypoints"
            raise InputError(f"{name}: {len(found)} {what}; a {self.model} map needs {few}")
        return found

    def _described(self, detector: str, image: Image, labels: Labels | None) -> Features:
        seen = within(image, labels if self.masked else None)
        if detector in DETECTORS:
            keypoints = detect(detector, seen, self.most)
            if self.descriptor != POLAR:
                return of_bits(image, *describe(self.descriptor, image, keypoints))
            return described(image, places_of(keypoints), self.radius)
        if detector == CENTRES and labels is not None:
            places = mask_centres(labels, self.area, self.most)
        else:
            places = corners(seen, self.most)
        if self.descriptor == POLAR:
            return described(image, places, self.radius)
        return of_bits(image, *describe(self.descriptor, image, keypoints_at(places)))

    def match(self, one: Features, other: Features, fixed: int = 0, moving: int = 1) -> SectionMatch:
        """Return how two sections match: the map from the first to the other, unless too few matches agree.

        Args:
            fixed, moving: which sections they are, by whose numbers draws differ.

        Raises:
            InputError: pixels of two sizes, or descriptors of two kinds.
        """
        if not math.isclose(one.spacing, other.spacing, rel_tol=1e-3):
            raise InputError(f"pixels of {one.spacing:g} mm and of {other.spacing:g} mm; one size is expected")
        if one.bits != other.bits:
            raise InputError("descriptors of two kinds cannot be compared")
        if not one.bits:
            pairs = alike(one, other)
        elif self.matcher == FLANN:
            pairs = by_flann(one.descriptors, other.descriptors, RATIO)
        else:
            pairs = by_brute_force(one.descriptors, other.descriptors)
        here, there = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
        unit = one.spacing
        try:
            generator = make_generator(self.seed, fixed, moving)
            matrix, agree = ransac(here, there, self.model, self.threshold * unit, generator)
        except ValueError:
            return SectionMatch(len(pairs), 0)
        off = float(distances(matrix, here[agree], there[agree]).square().mean().sqrt()) / unit
        count = int(agree.sum())
        enough = self._is_enough(count, len(pairs), other.points / unit) and _is_plausible(matrix, one.points)
        return SectionMatch(len(pairs), count, matrix if enough else None, off)

    def _is_enough(self, agree: int, matches: int, points: Tensor) -> bool:
        """Return whether so many agree as keypoints at random would not: twice as many as tell a map, and more.

        The expected number of maps through some of them by which as many agree, if each lay anywhere (Moisan & Stival,
        A probabilistic criterion to detect rigid point matches, IJCV 2004).

        Args:
            points: of the second section, `(N, 2)` px.
        """
        few = fewest(2, self.model)
        if agree < 2 * few:
            return False
        area = float((points.amax(0) - points.amin(0)).prod())
        near = min(1.0, math.pi * self.threshold**2 / max(area, 1e-30))
        tried = math.comb(matches, few) * (matches - few)
        more = agree - few  # beside those that tell the map: a binomial's tail
        return tried * float(betainc(more, matches - few - more + 1, near)) < CHANCE

    def solve(self, matches: Mapping[Edge, SectionMatch], grids: Sequence[Grid]) -> StackSolution:
        """Return the maps of all sections from those of pairs."""
        return solved(matches, grids, self.model, self.threshold, self.least, self.reference)


def _is_plausible(matrix: Tensor, points: Tensor) -> bool:
    """Return whether a map keeps areas, about, all over a section, and leads none of it beyond infinity."""
    low, high = points.amin(0), points.amax(0)
    x, y = (torch.linspace(0, 1, 5, dtype=torch.float64) * (high - low)[n] + low[n] for n in (0, 1))
    at = torch.cartesian_prod(x, y)
    if not bool(distances(matrix, at, at).isfinite().all()):
        return False
    weight = at @ matrix[2, :2] + matrix[2, 2]
    area = (torch.linalg.det(matrix) / weight**3).abs()  # the determinant of the map's derivative
    return bool((area < STRETCHED).all()) and bool((area > 1 / STRETCHED).all())


def _told(grid: Grid) -> str:
    return " × ".join(map(str, grid.shape))


METHOD = Method(
    about="sections of a stack, turned and shifted, by keypoints on masks or corners; ORB, BRISK, FAST, FREAK too",
    aligns=("group",),
    papers=(
        Paper(
            "goyal2022mito",
            "Goyal, Neha and Hussain, Yahiya and Yang, Gianna G. and Haehn, Daniel",
            "Faster EM image alignment with mitochondria (MITO)",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    register=Mito(),
    commands=("stack FOLDER",),
)
