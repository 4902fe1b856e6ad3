"""Multiple-gradient descent."""

from functools import cached_property
from typing import Any

from mtan_core.aggregation import Aggregator


class MGDA(Aggregator):
    """MGDA (Désidéri 2012; Sener and Koltun 2018, algorithm 2): the shortest vector in the convex hull of the gradients.

    Found by Frank-Wolfe with the authors' limits. It lies near the task with the shortest gradient, be it the best learnt.
    """

    source = "Sener, Koltun, Multi-task learning as multi-objective optimization, NeurIPS 2018"

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import MGDAWeighting

        return MGDAWeighting(epsilon=1e-5, max_iters=250)


WEIGHTING = MGDA
