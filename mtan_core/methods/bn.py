"""A pretrained pool that stands still, with batch norms of each domain's own."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="bn",
    summary="A pretrained pool that stands still, with batch norms of each domain's own.",
    source="Bilen, Vedaldi, Universal representations, 2017, arXiv 1701.07275",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=1.0,
)
