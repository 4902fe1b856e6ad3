"""One pool for all domains, and a head each."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="hard-sharing",
    summary="One pool for all domains, and a head each.",
    source="Caruana, Multitask learning, Machine Learning 1997",
)
