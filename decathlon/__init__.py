"""The Visual Decathlon: official files, store, batches, training runs, submissions, the score.

From Python: `decathlon.build(preset)` makes a network, `decathlon.load_run(folder)` loads a trained run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decathlon.building import build
    from decathlon.runs import load_run

__all__ = ["build", "load_run"]


def __getattr__(name: str) -> Any:
    """Load what needs torch when it is asked for, so that `mtan --help` need not wait."""
    if name == "build":
        from decathlon.building import build

        return build
    if name == "load_run":
        from decathlon.runs import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
