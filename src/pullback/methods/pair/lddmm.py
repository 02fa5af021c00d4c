"""LDDMM: the shortest flow between two images, shot from a scalar momentum.

Beg, Miller, Trouvé, Younes: Computing large deformation metric mappings via geodesic flows of diffeomorphisms, IJCV
2005. It is `Metamorphosis` without addition: what the fixed mask hides is left out of the similarity (masking of the
cost function, Brett et al. 2001), and the length of the path is a distance of images.
"""

from pullback.methods.method import Method, Paper
from pullback.methods.pair.metamorphosis import Metamorphosis

METHOD = Method(
    about="the shortest flow between two images, and its length; lesions are left out; no training",
    aligns=("pair",),
    papers=(
        Paper(
            "beg2005computing",
            "Beg, M. Faisal and Miller, Michael I. and Trouvé, Alain and Younes, Laurent",
            "Computing Large Deformation Metric Mappings via Geodesic Flows of Diffeomorphisms",
            "International Journal of Computer Vision",
            2005,
            "10.1023/B:VISI.0000043755.93987.aa",
            "article",
            "61",
            "139--157",
        ),
        Paper(
            "brett2001spatial",
            "Brett, Matthew and Leff, Alexander P. and Rorden, Chris and Ashburner, John",
            "Spatial Normalization of Brain Images with Focal Lesions Using Cost Function Masking",
            "NeuroImage",
            2001,
            "10.1006/nimg.2001.0845",
            "article",
            "14",
            "486--500",
        ),
    ),
    register=Metamorphosis(addition=0.0, masked=True, growing=None),
    solves=("identity", "shift", "smooth", "anisotropic", "thin", "batch"),
    as_given=True,
)
