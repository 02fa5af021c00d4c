"""Clouds to match: the points of a file, or keypoints and outlines of an image."""

from dataclasses import dataclass
from pathlib import Path

from pullback.errors import InputError
from pullback.files import PointTable, Surface, is_points, read_image, read_labels, read_points
from pullback.files.images.slide import pixel_of
from pullback.files.points.tables import made_table
from pullback.space import Image, Points, keypoints, outline
from pullback.workflows.outputs import pushed_name

MOST = 2000
"""Keypoints of an image: about as many as the clouds of lungs have that matching was measured on."""
OUTLINE = 800
"""Points of the outline of a label map."""
OF_EACH = 200
"""Points of the outline of each label, where these are told apart."""
LEAST = 20


@dataclass(frozen=True, eq=False)
class Cloud:
    """A cloud of points, in the form in which it is written, with its origin.

    Attributes:
        thing: a table or a surface.
        path: the file.
        kind: `"points"` or `"surface"` of a file of such, `"keypoints"` of an image, `"outline"` of a label map.
    """

    thing: PointTable | Surface
    path: str | Path
    kind: str

    @property
    def points(self) -> Points:
        """The points in the world, `(1, N, d)`."""
        return self.thing.points

    @property
    def is_made(self) -> bool:
        """Whether the points were found in an image."""
        return self.kind in ("keypoints", "outline")

    def moved(self, points: Points, pixel: tuple[float, float] | None) -> PointTable | Surface:
        """Return it with its points elsewhere; where it tells pixels, in those of a slide of `pixel` mm, x and y."""
        thing = self.thing.moved(points)
        return thing.told_in(pixel) if pixel is not None and isinstance(thing, PointTable) and thing.pixel else thing

    def named(self, stem: str) -> str:
        """Return a file name with the ending of the format in which its points are written."""
        return f"{stem}.csv" if self.is_made else pushed_name(stem, self.path)


def read_cloud(
    path: str | Path,
    space: str | None = None,
    mask: str | Path | None = None,
    by_label: bool = False,
    slide: str | Path | None = None,
) -> Cloud:
    """Read the points of a file, or find the keypoints of an image within its mask, or the outline of labels.

    Files of points are known by their name's ending; all others are images.

    Args:
        space: as in `read_points`.
        mask: of an image, where to look.
        slide: in whose pixels points of `.geojson`, or with `space` px of a table, are.
        by_label: of labels, take the outline of each, with its `label`, but for where the image cuts it off.

    Raises:
        InputError: a file that cannot be read, an image in 2-D, or one with too few keypoints.
    """
    if is_points(path):
        thing = read_points(path, space, pixel=None if slide is None else pixel_of(slide))
        return Cloud(thing, path, "surface" if isinstance(thing, Surface) else "points")
    image = read_image(path, mask)
    if is_label_map(image):
        labels = read_labels(path)
        outlined = outline(labels, OF_EACH, each=True, cut=False) if by_label else outline(labels, OUTLINE)
        return Cloud(made_table(outlined), path, "outline")
    if image.grid.ndim != 3:
        raise InputError(
            f"{path}: a 2-D image; keypoints are matched in 3-D alone: align slices by `pullback register`, or match "
            f"landmarks of theirs with --matched"
        )
    points = keypoints(image, MOST)
    if points.data.shape[1] < LEAST:
        raise InputError(
            f"{path}: {points.data.shape[1]} keypoints{f' within {mask}' if mask else ''}, and {LEAST} are needed; "
            f"{'take a larger mask, or ' if mask else ''}align it by `pullback register`"
        )
    return Cloud(made_table(points), path, "keypoints")


def is_label_map(image: Image) -> bool:
    """Return whether an image looks like labels: whole numbers from 0 on, most of which equal their neighbours."""
    data = image.data[0, 0]
    seen = (data != 0)[1:]
    if bool((data != data.round()).any()) or float(data.min()) != 0 or not bool(seen.any()):
        return False
    return bool((data[1:] == data[:-1])[seen].double().mean() > 0.5)
