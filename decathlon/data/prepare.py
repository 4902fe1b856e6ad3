"""From official files to a store: unpacked or in archives, all cores, bounded memory, every problem told.

A domain's folder appears in the store only when it is complete, and `store.json` when all are; a run that is interrupted
at any moment leaves no more than finished domains and temporary folders, and the next one goes on from there.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from decathlon.data.archives import End
from decathlon.data.assembly import Assembly
from decathlon.data.official import Listing, read_listing
from decathlon.data.pipeline import Boundary, Job, decode_all
from decathlon.data.problems import PROBLEMS, Problem
from decathlon.data.resplit import resplit as divide_anew
from decathlon.data.sources import Source, Survey, archived_images, find_source, resolve, survey, unpacked_images
from decathlon.data.store import FORMAT, MARKER, SPLITS, file_metadata
from decathlon.specs import choose_domains, official_domains
from mtan_core.errors import UserError
from mtan_core.files import held, taken, write_json
from mtan_core.progress import Advance, progress

OnError = Literal["fail", "skip"]


@dataclass
class Outcome:
    """What a pass did: `states` of the domains (prepared, kept, failed, absent), and every problem met."""

    states: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    images: int = 0  # decoded in this pass
    seconds: float = 0.0


def prepare(
    sources: Path | Iterable[Path],
    store: Path,
    domains: str | Iterable[str] | None = None,
    on_error: OnError = "fail",
    resplit: int | None = None,
) -> Outcome:
    """Write the store of an unpacked official root, a folder of official archives, or archives.

    Domains that the source lacks are left out; one named in `domains` must be there. Raises UserError before any work for
    a mistake in the options, or a finished domain made with others. Problems of the files are returned, not raised: a
    domain with one is `failed`, or with `on_error="skip"` is made without the images concerned.
    """
    begun = time.monotonic()
    if on_error not in ("fail", "skip"):
        raise UserError(f"--on-error: expected fail or skip, found '{on_error}'.")
    source = find_source([sources] if isinstance(sources, Path) else list(sources))
    wanted = (
        [name.strip() for name in domains.split(",")] if isinstance(domains, str) and domains else list(domains or [])
    )
    found = survey(source, wanted or None)
    chosen = _choose(source, found, wanted)
    with _locked(store):
        run = _Run(source, found, store, on_error, resplit)
        run.plan(chosen)
        run.work()
        run.outcome.states = {name: run.outcome.states[name] for name in chosen}
    run.outcome.seconds = time.monotonic() - begun
    return run.outcome


def _choose(source: Source, found: Survey, wanted: list[str]) -> list[str]:
    """The domains to make if their images are there: the wanted ones, which must be, else all that have annotations."""
    present = found.unpacked.keys() | found.archived
    if wanted:
        return choose_domains(wanted, _in_order(present), str(source))
    # What lies in archives is only known at their end. Folders without annotations are none of ours, but official ones.
    annotated = set(found.texts) if source.archives else present & found.texts.keys()
    chosen = _in_order(annotated | (present & official_domains().keys()))
    if not chosen:
        raise UserError(
            f"Expected data/<domain>/train and its annotations for at least one domain, found none: {source}."
        )
    return chosen


def _in_order(names: Iterable[str]) -> list[str]:
    official = official_domains()
    return sorted(names, key=lambda name: (official[name].number if name in official else 10**9, name))


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store for writing; the temporary folders of a run that was killed are removed first."""
    is_new = not store.exists()
    _refuse_foreign(store)
    store.mkdir(parents=True, exist_ok=True)
    try:
        with held(store, "a store"):
            for left in store.glob(".tmp-*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
    finally:
        if is_new and not any(store.iterdir()):
            store.rmdir()


def _refuse_foreign(store: Path) -> None:
    """Raises UserError for a folder that holds things already, none of which is a store's: the source itself, say."""
    begun = (store / MARKER).exists() or any(store.glob("*/train.arrow"))
    if taken(store) and not begun and not (store / PROBLEMS).exists():
        raise UserError(f"Expected a new folder or a store to write, found something else there: {store}.")


class _Run:
    """One pass over a source."""

    def __init__(self, source: Source, found: Survey, store: Path, on_error: OnError, resplit: int | None) -> None:
        self.source, self.found, self.store = source, found, store
        self.skip, self.resplit = on_error == "skip", resplit
        self.outcome = Outcome()
        self.assemblies: dict[str, Assembly] = {}
        self.pending: set[str] = set()
        self.numbers: dict[int, str] = {}

    def plan(self, chosen: list[str]) -> None:
        """Read the annotations and see what is to do. Raises UserError where a finished domain was made otherwise."""
        known = self.found.unpacked.keys() | self.found.archived
        for finished in self.store.glob("*/train.arrow"):
            self.numbers[file_metadata(finished)["spec"]["number"]] = finished.parent.name
        for name in chosen:
            if name in known or (self.store / name).exists():
                self._plan_domain(name)
            else:  # its annotations may be for nothing, and ImageNet's take 16 s and 1 GB: read when its first image comes
                self.pending.add(name)

    def _plan_domain(self, name: str) -> None:
        problems: list[Problem] = []
        listing = read_listing(name, self.found.texts.pop(name, {}), problems)
        self.outcome.problems += problems
        if listing is None:
            self.outcome.states[name] = "failed"
        elif (other := self.numbers.setdefault(listing.number, name)) != name:
            raise UserError(f"{name}: expected a domain number of its own, found {listing.number}, which is {other}'s.")
        elif (self.store / name).exists():
            self._check_finished(listing)
            self.outcome.states[name] = "kept"
        else:
            self.outcome.states[name] = "absent"  # until images of it have come
            self.assemblies[name] = self._assembly(listing, problems)

    def _assembly(self, listing: Listing, told: list[Problem]) -> Assembly:
        if self.resplit is not None:
            train, val = divide_anew(listing.splits["train"], listing.splits["val"], self.resplit, listing.number)
            listing = replace(listing, splits={**listing.splits, "train": train, "val": val})
        return Assembly(listing, self.store, skip=self.skip, options={"resplit": self.resplit}, told=told)

    def _check_finished(self, listing: Listing) -> None:
        folder = self.store / listing.name
        made = file_metadata(folder / "train.arrow")
        for what, expected, found in (
            ("annotations", listing.digest[:12], made["annotations"][:12]),
            ("--resplit", self.resplit, made["resplit"]),
            ("--on-error", "skip" if self.skip else "fail", "skip" if self.skip or made["skipped"] else "fail"),
        ):
            if expected != found:
                raise UserError(
                    f"{folder} is finished, but was made with {what} {found}, not {expected}: name another store, or remove that folder."
                )

    def work(self) -> None:
        """Decode everything, finish the domains, and mark the store as a whole one unless a domain failed."""
        try:
            for name, root in self.found.unpacked.items():
                if name in self.assemblies:
                    self._consume(self._unpacked_jobs(name, root), f"{name} (images)", len(self.assemblies[name]))
                    self._finish([name])
            archived = (self.assemblies.keys() | self.pending) - self.found.unpacked.keys()
            for archive in self.source.archives if archived else ():
                size = archive.stat().st_size
                self._consume(self._archived_jobs(archive, archived), f"{archive.name} (MB)", max(size >> 20, 1))
            self._finish(name for name in self.assemblies if name not in self.found.unpacked)
            self.outcome.states |= dict.fromkeys(self.pending, "absent")
        finally:
            for assembly in self.assemblies.values():
                assembly.abort()
        self.outcome.problems += [problem for assembly in self.assemblies.values() for problem in assembly.problems]
        self._mark()

    def _finish(self, names: Iterable[str]) -> None:
        for name in names:
            assembly = self.assemblies[name]
            if not assembly.any_seen:
                continue  # absent
            if not assembly.finished:
                assembly.finish()
            self.outcome.states[name] = "failed" if assembly.failed else "prepared"

    def _mark(self) -> None:
        """Write `store.json`: every finished domain, once no chosen one is missing."""
        if "failed" in self.outcome.states.values():
            return
        finished = [file.parent.name for file in self.store.glob("[!.]*/train.arrow")]
        if not finished:
            raise UserError(f"Expected images of at least one domain, found none: {self.source}.")
        domains = {name: list(SPLITS) for name in _in_order(finished)}
        write_json(self.store / MARKER, {"format": FORMAT, "domains": domains}, indent=1)

    def _consume(self, jobs: Iterator[Job | Boundary | int], title: str, total: int) -> None:
        with progress(title, total) as advance:
            for result in decode_all(_reporting(jobs, advance)):
                if isinstance(result, Boundary):
                    for assembly in self.assemblies.values():
                        assembly.finish_if_complete()
                    continue
                for block in result:
                    self.assemblies[block.domain].take(block)
                    self.outcome.images += len(block)

    def _unpacked_jobs(self, name: str, root: Path) -> Iterator[Job | Boundary | int]:
        """The annotated files in their order; then those that lie there without being annotated."""
        assembly = self.assemblies[name]
        for rows in assembly.listing.splits.values():
            for count, file in enumerate(rows.files):
                path = resolve(root, file)
                job = assembly.job(file, path) if path else None
                if job:
                    yield job
                if count % 64 == 63:
                    yield 64
            yield len(rows) % 64
        for file in unpacked_images(root, name):
            assembly.job(file, "")  # notes those that are not annotated; all others were met

    def _archived_jobs(self, archive: Path, names: set[str]) -> Iterator[Job | Boundary | int]:
        megabytes = 0
        for item in archived_images(archive, names):
            if isinstance(item, End):
                yield Boundary(item.name)
            elif isinstance(item, int):
                yield (item >> 20) - megabytes
                megabytes = item >> 20
            elif job := self._archived_job(*item):
                yield job

    def _archived_job(self, file: str, data: bytes) -> Job | None:
        name = file.split("/", 2)[1]
        if name in self.pending:
            self.pending.remove(name)
            self._plan_domain(name)
        return self.assemblies[name].job(file, data) if name in self.assemblies else None


def _reporting(jobs: Iterator[Job | Boundary | int], advance: Advance) -> Iterator[Job | Boundary]:
    """The jobs, with the numbers among them told as progress."""
    for job in jobs:
        if isinstance(job, int):
            advance(job)
        else:
            yield job
