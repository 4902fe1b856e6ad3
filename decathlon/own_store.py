"""The store in a run's own folder: the domains that were added to it, so that it answers for them wherever others lie."""

import os
import shutil
from pathlib import Path

from decathlon.data.store import FORMAT, MARKER, Store, open_store
from mtan_core.files import write_json

NAME = "store"


def with_added(store: Store, run: Path) -> Store:
    """A store together with the domains that lie in the run's own folder and not in it."""
    return store.with_more(open_store(run / NAME)) if (run / NAME / MARKER).is_file() else store


def carry_over(before: Path, after: Path, without: str) -> None:
    """Put the added domains of the run `before`, all but one, into the own store of the run `after`.

    Files are linked, not copied, where the file system can: nothing ever changes them.
    """
    if not (before / NAME / MARKER).is_file():
        return
    old = open_store(before / NAME)
    domains = {name: old.splits(name) for name in old.domains if name != without}
    for name in domains:
        shutil.copytree(before / NAME / name, after / NAME / name, copy_function=_link)
    if (after / NAME / MARKER).is_file():
        new = open_store(after / NAME)
        domains |= {name: new.splits(name) for name in new.domains}
    if domains:
        write_json(after / NAME / MARKER, {"format": FORMAT, "domains": domains}, indent=1)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
