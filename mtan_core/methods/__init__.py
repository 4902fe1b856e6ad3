"""The methods by which one network learns many domains: what they share, what each domain owns, and what stands still.

A method is one file here that defines `METHOD`; it is found by being there. All of them are trained by the same code.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mtan_core.methods.method import Method

__all__ = ["Method", "methods"]


@cache
def methods() -> dict[str, Method]:
    """All methods by name, `mtan` first."""
    found = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__) if file.name != "method"]
    made: list[Method] = [module.METHOD for module in found]
    return {method.name: method for method in sorted(made, key=lambda method: (method.name != "mtan", method.name))}
