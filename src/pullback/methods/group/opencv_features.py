"""ORB, BRISK, FAST and FREAK by OpenCV, which is imported when one of them is asked for.

Rublee et al. 2011, Leutenegger et al. 2011, Rosten & Drummond 2006, Alahi et al. 2012, with OpenCV's numbers: ORB's 500
points, BRISK's threshold 30 and 3 octaves, FAST's threshold 10. OpenCV 5 has BRISK and FREAK in `cv2.xfeatures2d`.
"""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.errors import InputError
from pullback.space import Image

DETECTORS = ("orb", "brisk", "fast")
DESCRIPTORS = ("orb", "brisk", "freak")
SUPPORT = 31.0
"""px, the size of a keypoint of a mask: the support of ORB's descriptor."""
LSH = {"algorithm": 6, "table_number": 6, "key_size": 12, "multi_probe_level": 1}
CHECKS = 50
AT_ONCE = 2048  # descriptors of which all distances are held at a time


def opencv() -> Any:
    """Return OpenCV, with as many threads as torch has.

    Raises:
        InputError: it is not installed.
    """
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        raise InputError(
            "ORB, BRISK, FAST and FREAK need OpenCV: pip install opencv-contrib-python-headless; or leave detector and "
            "descriptor out"
        ) from error
    cv2.setNumThreads(torch.get_num_threads())
    return cv2


def detect(kind: str, image: Image, most: int) -> list[Any]:
    """Return OpenCV's keypoints of a section, in its mask where it has one.

    Args:
        kind: one of `DETECTORS`.
        most: the strongest so many are kept; all of 0, but of ORB 500.

    Raises:
        InputError: OpenCV is not installed, or lacks it.
    """
    inside = None if image.mask is None else _turned(image.mask[0, 0].to(torch.uint8))
    found = sorted(_made(kind, most).detect(_grey(image), inside), key=lambda each: -each.response)
    return found[:most] if most else found


def keypoints_at(places: Tensor) -> list[Any]:
    """Return OpenCV's keypoints at pixel coordinates `(N, 2)`, without a direction, of the size `SUPPORT`."""
    cv2 = opencv()
    return [cv2.KeyPoint(x, y, SUPPORT) for x, y in places.tolist()]


def places_of(keypoints: list[Any]) -> Tensor:
    """Return the pixel coordinates of OpenCV's keypoints, `(N, 2)` float64."""
    return torch.tensor([each.pt for each in keypoints], dtype=torch.float64).reshape(-1, 2)


def describe(kind: str, image: Image, keypoints: list[Any]) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates `(N, 2)` and descriptors `(N, bytes)` uint8 of the keypoints that have one.

    Raises:
        InputError: OpenCV is not installed, or lacks it.
    """
    kept, bits = _made(kind, 0).compute(_grey(image), keypoints)
    bits = np.zeros((0, 64), dtype=np.uint8) if bits is None else bits
    return places_of(list(kept)), torch.from_numpy(np.ascontiguousarray(bits))


def by_brute_force(one: Tensor, other: Tensor) -> Tensor:
    """Return descriptors that are each other's nearest by Hamming's distance, `(K, 2)`, ties by the lower index."""
    if not len(one) or not len(other):
        return torch.zeros(0, 2, dtype=torch.long)
    cv2 = opencv()
    there = _nearest(cv2, one, other)
    back = _nearest(cv2, other, one)
    rows = torch.arange(len(one))
    return torch.stack([rows, there], 1)[back[there] == rows]


def by_flann(one: Tensor, other: Tensor, ratio: float) -> Tensor:
    """Return for descriptors their nearest by locality-sensitive hashing, `(K, 2)`.

    Those are left out whose second nearest is hardly farther (Lowe 2004): `ratio`, at most.
    """
    if not len(one) or len(other) < 2:
        return torch.zeros(0, 2, dtype=torch.long)
    cv2 = opencv()
    cv2.setRNGSeed(0)
    found = cv2.FlannBasedMatcher(LSH, {"checks": CHECKS}).knnMatch(one.numpy(), other.numpy(), k=2)
    pairs = [each for each in found if len(each) == 2 and each[0].distance <= ratio * each[1].distance]
    return torch.tensor([[each[0].queryIdx, each[0].trainIdx] for each in pairs], dtype=torch.long).reshape(-1, 2)


def _nearest(cv2: Any, one: Tensor, other: Tensor) -> Tensor:
    found = cv2.BFMatcher(cv2.NORM_HAMMING).match(one.numpy(), other.numpy())
    return torch.tensor([each.trainIdx for each in sorted(found, key=lambda each: each.queryIdx)])


def _made(kind: str, most: int) -> Any:
    cv2 = opencv()
    if kind == "fast":
        return cv2.FastFeatureDetector_create(10, True)
    name = f"{kind.upper()}_create"
    make = getattr(cv2, name, None) or getattr(getattr(cv2, "xfeatures2d", None), name, None)
    if make is None:
        raise InputError(f"OpenCV {cv2.__version__} lacks {kind.upper()}: pip install opencv-contrib-python-headless")
    return make(most or 500) if kind == "orb" else make(30, 3) if kind == "brisk" else make()


def _grey(image: Image) -> np.ndarray:
    """Return a section as OpenCV has it, `(Y, X)` uint8; other numbers than 0 … 255 are stretched to these."""
    data = image.data[0, 0]
    low, high = float(data.min()), float(data.max())
    if low < 0 or high > 255 or (high <= 1 and high > low):
        data = (data - low) * (255 / max(high - low, 1e-30))
    return _turned(data.round().to(torch.uint8))


def _turned(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.cpu().numpy().T)
