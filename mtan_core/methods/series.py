"""Series residual adapters: a 1x1 convolution of each domain's own behind every 3x3 filter bank, which stands still."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="series",
    summary="Series residual adapters: a 1x1 convolution of each domain's own behind every 3x3 filter bank, which stands still.",
    source="Rebuffi, Bilen, Vedaldi, Learning multiple visual domains with residual adapters, NeurIPS 2017",
    conv="series",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=2.0,
)
