"""Ten networks from random weights, one per domain."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="scratch",
    summary="Ten networks from random weights, one per domain.",
    source="Rebuffi, Bilen, Vedaldi, Learning multiple visual domains with residual adapters, NeurIPS 2017",
    conv="own",
    own_norms=True,
    published_multiple=10.0,
)
