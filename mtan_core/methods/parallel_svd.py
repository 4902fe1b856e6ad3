"""Parallel residual adapters of low rank."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="parallel-svd",
    summary="Parallel residual adapters of low rank.",
    source="Rebuffi, Bilen, Vedaldi, Efficient parametrization of multi-domain deep neural networks, CVPR 2018",
    conv="low_rank",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=1.5,
)
