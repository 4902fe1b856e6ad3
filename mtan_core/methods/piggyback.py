"""Binary masks of each domain's own on the weights of a pretrained pool, which stand still."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="piggyback",
    summary="Binary masks of each domain's own on the weights of a pretrained pool, which stand still.",
    source="Mallya, Davis, Lazebnik, Piggyback, ECCV 2018",
    conv="piggyback",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=1.28,
)
