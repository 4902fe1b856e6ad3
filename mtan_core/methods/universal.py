"""One pool for all domains that learns from teachers of one domain each."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="universal",
    summary="One pool for all domains that learns from teachers of one domain each.",
    source="Li, Liu, Bilen, Universal representations: a unified look at multiple task and domain learning, IJCV 2023",
    distilled=True,
    published_multiple=1.0,
)
