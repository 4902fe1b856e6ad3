"""MTAN with parallel residual adapters in the pool, which learns."""

from mtan_core.methods.method import Method

METHOD = Method(
    name="mtan+parallel",
    summary="MTAN with parallel residual adapters in the pool, which learns.",
    source="this package: both papers together",
    conv="parallel",
    ladder=True,
    own_norms=True,
)
