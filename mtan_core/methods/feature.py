"""A pretrained pool that stands still, batch norms included; each domain learns a linear head."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="feature",
    summary="A pretrained pool that stands still, batch norms included; each domain learns a linear head.",
    source="Rebuffi, Bilen, Vedaldi, Learning multiple visual domains with residual adapters, NeurIPS 2017",
    frozen=True,
    pretrained=True,
    published_multiple=1.0,
)
