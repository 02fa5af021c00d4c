"""Contracts as a product: a register, an energy or a transform is shown to be one by a short test.

    from pullback.testing import check_register, problems

    @pytest.mark.parametrize("problem", problems("identity", "shift", "smooth"), ids=str)
    def test_mine(problem):
        check_register(MyRegister(), problem)

Each check raises `BrokenContract`, an `AssertionError`, that says who promised what, and what came. No check needs a
test runner.
"""

from pullback.testing.augmentation import check_augmentation
from pullback.testing.clouds import PointProblem, point_problems
from pullback.testing.contract import BrokenContract
from pullback.testing.coverage import check_coverage, public_classes
from pullback.testing.energy import check_energy
from pullback.testing.group import GroupProblem, check_group, group_problems
from pullback.testing.problems import Problem, problems
from pullback.testing.register import check_register
from pullback.testing.supervision import check_supervision
from pullback.testing.transform import check_transform

__all__ = [
    "BrokenContract",
    "GroupProblem",
    "PointProblem",
    "Problem",
    "check_augmentation",
    "check_coverage",
    "check_energy",
    "check_group",
    "check_register",
    "check_supervision",
    "check_transform",
    "group_problems",
    "point_problems",
    "problems",
    "public_classes",
]
