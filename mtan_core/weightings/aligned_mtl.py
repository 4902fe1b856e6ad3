"""Aligned multi-task learning."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from mtan_core.aggregation import Aggregator

Scale = Literal["min", "median", "rmse"]


class AlignedMTL(Aggregator):
    """Aligned-MTL (Senushkin et al. 2023, algorithm 1): the mean of the gradients made orthogonal and equally long.

    They get the length of the smallest singular value of the Jacobian (`scale` "min", the paper's), of the median one or
    of the root of the mean square ("rmse", the authors' code).
    """

    source = (
        "Senushkin, Patakin, Kuznetsov, Konushin, Independent component alignment for multi-task learning, CVPR 2023"
    )

    def __init__(self, tasks: Sequence[str], seed: int = 0, scale: Scale = "min") -> None:
        super().__init__(tasks, seed)
        self.scale = scale

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import AlignedMTLWeighting

        return AlignedMTLWeighting(scale_mode=self.scale)


WEIGHTING = AlignedMTL
