"""Dense prediction: one image, several things said of every pixel.

From Python: `dense_tasks.build(method)` makes the paper's network, `dense_tasks.load_run(RUN).network(images)` answers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dense_tasks.building import build
    from dense_tasks.runs import load_run

__all__ = ["build", "load_run"]


def __getattr__(name: str) -> Any:
    """Load what needs torch when it is asked for, so that `mtan --help` need not wait."""
    if name == "build":
        from dense_tasks.building import build

        return build
    if name == "load_run":
        from dense_tasks.runs import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
