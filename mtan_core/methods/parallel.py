"""Parallel residual adapters: a 1x1 convolution of each domain's own beside every 3x3 filter bank, which stands still."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="parallel",
    summary="Parallel residual adapters: a 1x1 convolution of each domain's own beside every 3x3 filter bank, which stands still.",
    source="Rebuffi, Bilen, Vedaldi, Efficient parametrization of multi-domain deep neural networks, CVPR 2018",
    conv="parallel",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=2.0,
)
