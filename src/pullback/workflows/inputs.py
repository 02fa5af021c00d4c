"""Input files of two images, read and checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pullback.alignment import Pair
from pullback.errors import InputError
from pullback.files import Finding, audit, audit_pair, read_channels, read_labels
from pullback.files.images.image_file import ImageFile, ImageSource
from pullback.files.images.look import Look
from pullback.files.images.nifti import refuse_sheared
from pullback.files.images.slide import Slide, opens_as_slide
from pullback.space import Image, Labels


@dataclass(frozen=True)
class ImageFiles:
    """The files of one of the two images.

    Attributes:
        images: its channels, one file each, on one grid.
        mask: where to look: not 0.
        exclude: where not to look, such as lesions: not 0.
        labels: of the structures in it.
        look: how slides among the images are looked at.
    """

    images: Sequence[ImageSource]
    mask: str | Path | None = None
    exclude: str | Path | None = None
    labels: str | Path | None = None
    look: Look = Look()

    @property
    def slides(self) -> tuple[Slide, ...]:
        """The images that are pictures in colour, or slides."""
        return tuple(Slide.open(str(path)) for path in self.images if opens_as_slide(str(path)))

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the image."""
        more = (self.mask, self.exclude, self.labels)
        return tuple(str(path) for path in (*self.images, *more) if path is not None)

    def opened(self) -> "ImageFiles":
        """Return the same files, each image of which is read once, whoever looks at it."""
        return replace(self, images=[ImageFile(str(path), self.look) for path in self.images])

    def closed(self) -> "ImageFiles":
        """Return the same files by their paths, so that voxels that were kept can go."""
        return replace(self, images=[str(path) for path in self.images])


def read_pair(fixed: ImageFiles, moving: ImageFiles) -> Pair:
    """Read the images, masks and labels of a pair.

    Raises:
        InputError: a file that cannot be read, on another grid than its image, or sheared, which transforms of ITK are
            not; dimensions or channels that differ.
    """
    one, two = _image(fixed), _image(moving)
    for unit, a, b in (("-D", one.grid.ndim, two.grid.ndim), (" channels", len(fixed.images), len(moving.images))):
        if a != b:
            raise InputError(f"{fixed.images[0]}: {a}{unit}, but {moving.images[0]}: {b}{unit}; both must be alike")
    refuse_sheared(one.grid, fixed.images[0])
    refuse_sheared(two.grid, moving.images[0])
    return Pair(
        one,
        two,
        fixed_labels=_labels(fixed, one),
        moving_labels=_labels(moving, two),
        name=f"{fixed.images[0]} ← {moving.images[0]}",
    )


def _labels(files: ImageFiles, image: Image) -> Labels | None:
    if files.labels is None:
        return None
    labels = read_labels(files.labels, on=image.grid)
    if not labels.data.any():
        raise InputError(f"{files.labels}: the labels are 0 everywhere; leave them out")
    return labels


def _image(files: ImageFiles) -> Image:
    """Read the channels, with the mask less what is excluded."""
    image = read_channels(files.images, files.mask)
    if files.exclude is not None:
        kept = read_labels(files.exclude, on=image.grid, what="mask").data == 0
        kept = kept if image.mask is None else kept & image.mask
        if not kept.any():
            raise InputError(f"{files.exclude}: leaves nothing of the image to look at; it marks what to leave out")
        image = replace(image, mask=kept)
    if image.mask is None:
        return image
    for path, channel in zip(files.images, image.data[0], strict=True):
        seen = channel[image.mask[0, 0]]
        if seen.min() == seen.max():
            by = " and ".join(str(each) for each in (files.mask, files.exclude) if each is not None)
            raise InputError(
                f"{by}: {path} is {float(seen.min()):g} everywhere that is left to look at; a mask marks where to "
                f"look, an exclude where not to: are they meant the other way round?"
            )
    return image


def told_of_slides(*images: ImageFiles) -> list[str]:
    """Say in sentences what is looked at of slides."""
    return [files.look.told(slide) for files in images for slide in files.slides]


def headers(fixed: ImageFiles, moving: ImageFiles) -> list[dict[str, str]]:
    """Return the findings about the headers of both images, as data."""
    found: list[Finding] = [finding for files in (fixed, moving) for path in files.images for finding in audit(path)]
    found += audit_pair(fixed.images[0], moving.images[0])
    return [{"severity": f.severity.value, "what": f.what, "remedy": f.remedy} for f in found]
