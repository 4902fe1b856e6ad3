"""Ten copies of a pretrained pool, each learnt on."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="finetune",
    summary="Ten copies of a pretrained pool, each learnt on.",
    source="Rebuffi, Bilen, Vedaldi, Learning multiple visual domains with residual adapters, NeurIPS 2017",
    conv="own",
    own_norms=True,
    pretrained=True,
    published_multiple=10.0,
)
