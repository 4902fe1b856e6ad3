"""Learning from teachers of one domain each, with parallel residual adapters in the pool."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="universal+parallel",
    summary="Learning from teachers of one domain each, with parallel residual adapters in the pool.",
    source="Li, Liu, Bilen, Universal representations: a unified look at multiple task and domain learning, IJCV 2023",
    conv="parallel",
    own_norms=True,
    distilled=True,
    published_multiple=2.0,
)
