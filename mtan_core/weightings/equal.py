"""Equal weights: the plain sum of the losses."""

from mtan_core.weighting import Weighting


class Equal(Weighting):
    """Every weight is 1."""


WEIGHTING = Equal
