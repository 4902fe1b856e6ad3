"""The loss weightings. One is one file here that defines `WEIGHTING`, its class; it is found by being there.

The list of names is there without torch; a class is imported when it is used, and with it what it needs.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtan_core.weighting import Weighting

__all__ = ["make_weighting", "weighting_class", "weightings"]


@cache
def weightings() -> tuple[str, ...]:
    """The names of all weightings, `equal` first: their files' names with - for _."""
    names = [file.name.replace("_", "-") for file in iter_modules(__path__)]
    return tuple(sorted(names, key=lambda name: (name != "equal", name)))


def weighting_class(name: str) -> type["Weighting"]:
    """The class of the weighting of that name, one of `weightings()`."""
    return import_module(f"{__name__}.{name.replace('-', '_')}").WEIGHTING


def make_weighting(name: str, tasks: Sequence[str], **options: Any) -> "Weighting":
    """The weighting of that name. Of `options` it gets those that its constructor names."""
    made = weighting_class(name)
    known = signature(made).parameters
    return made(tasks, **{key: value for key, value in options.items() if key in known})
