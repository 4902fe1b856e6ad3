"""What distinguishes one method from another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the list of methods is there without torch
    from mtan_core.convs import ConvKind


@dataclass(frozen=True)
class Method:
    """A way to share a pool among domains.

    `conv`: the kind of the pool's convolutions. `ladder`: whether each domain has attention masks on the pool.
    `frozen`: whether what the pool shares stands still, so that a domain moves nothing but its own. `own_norms`: whether
    domains need batch norms of their own. `pretrained`: whether the method begins with a trained pool (`--pool-from`).
    `distilled`: whether it needs teachers (`--teachers`), which other methods may have as well.
    """

    name: str
    summary: str
    source: str
    conv: "ConvKind" = "shared"
    ladder: bool = False
    frozen: bool = False
    own_norms: bool = False
    pretrained: bool = False
    distilled: bool = False
    published_multiple: float | None = None  # parameters of ten domains over those of one network, in its paper
