"""The kinds of transform files, in one table, and the one place that tells them apart."""

from enum import Enum
from pathlib import Path

from pullback.errors import InputError
from pullback.files.suffixes import refuse_absent
from pullback.files.transforms import (
    ants,
    elastix,
    freesurfer,
    fsl,
    itk,
    learn2reg,
    niftyreg,
    ras_matrix,
    spm,
    x5,
)
from pullback.files.transforms.kind import Evidence, Kind


class TransformKind(Enum):
    """The kind of a transform file. Names to be written are asked for in this order."""

    ANTS = ants.KIND
    ELASTIX = elastix.KIND
    SPM = spm.KIND
    LEARN2REG = learn2reg.KIND
    ITK = itk.KIND
    FSL = fsl.KIND
    NIFTYREG = niftyreg.KIND
    FREESURFER = freesurfer.KIND
    C3D = ras_matrix.KIND
    X5 = x5.KIND

    @property
    def kind(self) -> Kind:
        """Description of files of this kind."""
        return self.value

    @property
    def word(self) -> str:
        """Name in `--from` and `--to`."""
        return self.value.word


WORDS = ", ".join(kind.word for kind in TransformKind)
"""All words of `--from` and `--to`."""
REMEDIES = {
    ".xfm": "an affine of MINC or FreeSurfer: lta_convert --inmni IN --outlta OUT",
    ".dat": "a register.dat of FreeSurfer: lta_convert --inreg IN --outlta OUT --src MOVING --trg FIXED",
    ".1d": "an affine of AFNI: cat_matvec -ONELINE, then 3dAllineate writes a warp, or see nitransforms",
    ".mat": "a .mat of MATLAB, such as SPM's: make a deformation y_*.nii of it by SPM's Deformations utility",
    ".mgz": "a warp or an image of FreeSurfer: mri_warp_convert --inmgzwarp IN --outitk OUT.nii.gz",
}


def kind_of(path: str | Path) -> TransformKind:
    """Return the kind of a file by all that names it.

    Raises:
        InputError: no such file, nothing that names one kind, or what names several.
    """
    evidence = Evidence(path)
    if ants.KIND.looks(evidence):
        return TransformKind.ANTS
    refuse_absent(path)
    fits = [kind for kind in TransformKind if kind.kind.looks(evidence)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        may = " or ".join(kind.word for kind in fits)
        raise InputError(
            f"{path}: may be a transform of {may}, which nothing in it tells apart; say which: pullback convert --from"
        )
    raise InputError(f"{path}: {_unknown(evidence)}")


def kind_to_write(path: str | Path) -> TransformKind:
    """Return the kind that a file of this name is written as.

    Raises:
        InputError: the name is of no kind alone.
    """
    name = Path(path).name.lower()
    for kind in TransformKind:
        if kind.kind.names(name):
            return kind
    raise InputError(f"{path}: the name does not say what kind of transform it is; say with --to: {WORDS}")


def _unknown(evidence: Evidence) -> str:
    """Describe a file of no kind, and say what to do."""
    header = evidence.header
    ask = f"if it is one, say of which kind, pullback convert --from: {WORDS}"
    if header is None:
        ending = Path(evidence.name).suffix
        return REMEDIES.get(ending, f"not a transform of a kind that is known; {ask}")
    named = f", named {header.name!r}" if header.name else ""
    return (
        f"not a displacement field that is known: shape {header.shape}, intent {header.intent}{named}; ITK's are "
        f"(X, Y, Z, 1, 3) with intent 1007 and no name; {ask}"
    )
