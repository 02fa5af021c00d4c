"""The clouds of a match: the points of a file, or of what is seen in an image."""

from dataclasses import dataclass
from pathlib import Path

from pullback.errors import InputError
from pullback.files import PointTable, Surface, is_points, read_image, read_points
from pullback.files.points.tables import made_table
from pullback.space import Image, Labels, Points, keypoints, outline
from pullback.workflows.outputs import pushed_name

MOST = 2000
"""Keypoints of an image: about as many as the clouds of lungs have that matching was measured on."""
OUTLINE = 800
"""Points of the outline of a label map."""
LEAST = 20


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points, in the form in which they are written, and whence they come.

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
        """In the world, `(1, N, d)`."""
        return self.thing.points

    @property
    def is_made(self) -> bool:
        """Whether they were found in an image."""
        return self.kind in ("keypoints", "outline")

    def named(self, stem: str) -> str:
        """A name that ends as its points are written."""
        return f"{stem}.csv" if self.is_made else pushed_name(stem, self.path)


def read_cloud(path: str | Path, space: str | None = None, mask: str | Path | None = None) -> Cloud:
    """The points or vertices of a file, by its name's ending; of other files, which are images, the keypoints in the
    mask, or of a label map its outline.

    Args:
        space: as `read_points` has it.
        mask: of an image, where to look.

    Raises:
        InputError: a file that cannot be read, an image in 2-D, or one in which too little is to be seen.
    """
    if is_points(path):
        thing = read_points(path, space)
        return Cloud(thing, path, "surface" if isinstance(thing, Surface) else "points")
    image = read_image(path, mask)
    if image.grid.ndim != 3:
        raise InputError(
            f"{path}: a 2-D image; keypoints are matched in 3-D alone: align slices by `pullback register`, or match "
            f"landmarks of theirs with --matched"
        )
    if is_label_map(image):
        return Cloud(made_table(outline(Labels(image.data.long(), image.grid), OUTLINE)), path, "outline")
    points = keypoints(image, MOST)
    if points.data.shape[1] < LEAST:
        raise InputError(
            f"{path}: {points.data.shape[1]} keypoints{f' within {mask}' if mask else ''}, and {LEAST} are needed; "
            f"{'take a larger mask, or ' if mask else ''}align it by `pullback register`"
        )
    return Cloud(made_table(points), path, "keypoints")


def is_label_map(image: Image) -> bool:
    """Whether it holds whole numbers from 0 on, most of which are their neighbours' too, as those of structures are."""
    data = image.data[0, 0]
    seen = (data != 0)[1:]
    if bool((data != data.round()).any()) or float(data.min()) != 0 or not bool(seen.any()):
        return False
    return bool((data[1:] == data[:-1])[seen].double().mean() > 0.5)
