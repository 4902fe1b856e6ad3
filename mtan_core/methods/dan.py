"""Deep Adaptation Networks: each domain recombines the filters of a pretrained pool linearly."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="dan",
    summary="Deep Adaptation Networks: each domain recombines the filters of a pretrained pool linearly.",
    source="Rosenfeld, Tsotsos, Incremental learning through deep adaptation, TPAMI 2018",
    conv="controllers",
    frozen=True,
    own_norms=True,
    pretrained=True,
    published_multiple=2.17,
)
