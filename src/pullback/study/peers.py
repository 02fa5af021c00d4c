"""Other people's registrations, as registers beside ours."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.files import write
from pullback.files.transforms.ants import read_ants
from pullback.space import Image


@dataclass(frozen=True)
class ANTs:
    """`ants.registration` (Avants et al. 2008), all as ANTsPy has it; from and to files, as that reads and writes them.

    It samples by chance and adds up by threads, so what it finds differs from run to run, over one pair by some points
    of Dice; antspyx 0.6 is the same each time only with one thread.

    Attributes:
        kind: `"SyN"`, by mutual information, or `"SyNCC"`, by local cross-correlation, which takes minutes.
    """

    kind: str = "SyN"

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        """Fixed → moving, both of one channel.

        Raises:
            InputError: antspyx is not installed.
        """
        try:
            ants = import_module("ants")
        except ImportError as error:
            raise InputError(f"{self.kind} needs antspyx: pip install 'pullback[peers]'") from error
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{side}.nii.gz" for side in ("fixed", "moving")]
            for image, path in zip((fixed, moving), paths, strict=True):
                write(image, path)
            images = [ants.image_read(str(path)) for path in paths]
            found = ants.registration(*images, self.kind, outprefix=f"{folder}/")["fwdtransforms"]
            transform = read_ants(found)
        return Alignment(Pair(fixed, moving), transform)
