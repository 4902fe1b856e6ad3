"""Ten generated domains of the same kinds as the Decathlon's, in its layout: to try everything with no data at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_miniature(root: Path, seed: int = 0, domains: "Sequence[str] | None" = None) -> dict[str, Any]:
    """Generate the miniature; see `decathlon.miniature.writer.write_miniature`."""
    from decathlon.miniature.writer import write_miniature as write

    return write(root, seed, domains)
