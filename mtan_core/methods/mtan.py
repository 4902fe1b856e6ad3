"""The Multi-Task Attention Network: a shared pool, and attention masks of each domain's own that select from it."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="mtan",
    summary="The Multi-Task Attention Network: a shared pool, and attention masks of each domain's own that select from it.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019",
    ladder=True,
    published_multiple=1.74,
)
