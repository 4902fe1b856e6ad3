"""Networks by name: torchvision's, timm's, and the user's own."""

import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtan_core.errors import UserError


def find_module(name: str) -> nn.Module:
    """`torchvision:NAME`, `timm:NAME`, or `package.module:callable` (called without arguments), with fresh weights.

    A module of the user's own may lie in the current folder. Raises UserError for a name that is not there, and for a
    callable that fails or returns something else.
    """
    where, _, what = name.partition(":")
    with torch.device("cpu"):
        if where == "torchvision":
            return _torchvision(what)
        return _timm(what) if where == "timm" else _own(where, what)


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)  # type: ignore[attr-defined]
    if name not in known:
        raise UserError(
            f"`pool`: torchvision has no classification model '{name}'{_near(name, known, 'torchvision.models.list_models()')}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initial weights that will be others some day
        return models.get_model(name, weights=None)  # type: ignore[attr-defined]


def _timm(name: str) -> nn.Module:
    try:
        timm = import_module("timm")
    except ImportError:
        raise UserError(
            f"`pool`: expected the package timm for 'timm:{name}', found it not installed: "
            "install it by `pip install 'mtan-decathlon[timm]'`."
        ) from None
    known = timm.list_models()
    if name not in known:
        raise UserError(f"`pool`: timm has no model '{name}'{_near(name, known, 'timm.list_models()')}.")
    return timm.create_model(name, pretrained=False)


def _near(name: str, known: Iterable[str], everything: str) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" ({everything} lists them)"


def _own(module: str, attribute: str) -> nn.Module:
    name = f"{module}:{attribute}"
    with _surroundings():
        make = _attribute(module, attribute)
        try:
            made = make()
        except (Exception, SystemExit) as problem:  # whatever a stranger's code may do
            raise UserError(f"`pool`: expected that {name}() makes a network, found {_told(problem)}.") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"`pool`: expected that {name}() returns a torch.nn.Module, found {type(made).__name__}.")
    return made


def _attribute(module: str, attribute: str) -> Any:
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{module}.".startswith(f"{problem.name}."):
            raise UserError(f"`pool`: expected to import {module}, found {_told(problem)}.") from None
        raise UserError(
            "`pool`: expected torchvision:NAME, timm:NAME or MODULE:CALLABLE, found "
            f"'{module}:{attribute}', and no module {problem.name} here or among the installed ones."
        ) from None
    except AttributeError as problem:
        if attribute in vars(sys.modules.get(module, object)) or problem.name != attribute:
            raise UserError(f"`pool`: expected to import {module}, found {_told(problem)}.") from None
        callables = [key for key, value in vars(sys.modules[module]).items() if callable(value) and key[0] != "_"]
        raise UserError(
            f"`pool`: {module} has no '{attribute}'{_near(attribute, callables, f'dir({module})')}."
        ) from None
    except (Exception, SystemExit) as problem:
        raise UserError(f"`pool`: expected to import {module}, found {_told(problem)}.") from None


def _told(problem: BaseException) -> str:
    said = (str(problem).strip().splitlines() or [""])[0].rstrip(".")[:300]
    return f"{type(problem).__name__}{': ' if said else ''}{said}"


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """The current folder can be imported from, and what is printed does not mix with a command's answer."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(here)
