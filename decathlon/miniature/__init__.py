"""Ten generated domains of the same kinds as the Decathlon's, in its layout: to try everything with no data at all."""

from decathlon.miniature.writer import write_miniature

__all__ = ["write_miniature"]
