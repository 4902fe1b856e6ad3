"""Ctrl-C as a wish: moved to the core, where the dense tasks have it from too."""

from mtan_core.stopping import INTERRUPTED, repeatable, stoppable

__all__ = ["INTERRUPTED", "repeatable", "stoppable"]
