"""Groups of runs that differ only in their seed, beside a reference."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dense_tasks.metrics import delta_mtl
from experiments.compare.measured import MEAN, SCORE, TEST_MEAN, Measured
from experiments.compare.published import (
    Published,
    PublishedDense,
    published_rows,
    why_not_comparable,
    why_not_official,
)
from experiments.compare.statistics import TEST, Difference, Sample, difference
from mtan_core.errors import UserError, nearest

FIRST_NAMED = ("method", "weighting.kind", "norm", "sampling")  # what runs are called by, where it tells them apart


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    name: str
    runs: tuple[Measured, ...]

    @property
    def first(self) -> Measured:
        return self.runs[0]

    def sample(self, measure: str) -> Sample | None:
        """A measure over the seeds; None where a run has not got it."""
        values = [run.measures[measure] for run in self.runs if measure in run.measures]
        return Sample(tuple(values)) if len(values) == len(self.runs) else None

    @property
    def minutes(self) -> Sample | None:
        values = [run.seconds / 60 for run in self.runs if run.seconds is not None]
        return Sample(tuple(values)) if len(values) == len(self.runs) else None


@dataclass(frozen=True)
class Comparison:
    """Groups beside the reference, which is one of them, and beside published rows where they were asked for."""

    kind: str
    groups: tuple[Group, ...]
    reference: Group
    published: tuple[Published, ...] | tuple[PublishedDense, ...]
    apart: tuple[str, ...]  # why the published rows are not comparable; empty: they are, or none were asked for
    remarks: tuple[str, ...] = ()  # what else is to be said

    @property
    def measures(self) -> list[str]:
        """All measures of any group, in order."""
        return list(dict.fromkeys(measure for group in self.groups for measure in group.first.measures))

    @property
    def headline(self) -> str:
        """The measure of Decathlon runs by which rows are told apart: of validation, or of test where nothing was validated."""
        return next(iter(self.reference.first.main), MEAN)

    def difference(self, group: Group, measure: str) -> Difference | None:
        """None for the reference itself, and where data or protocol differ, so that a difference would mean nothing."""
        own, other = group.sample(measure), self.reference.sample(measure)
        if group is self.reference or own is None or other is None or self.unlike(group):
            return None
        return difference(own, other)

    def unlike(self, group: Group) -> str | None:
        """What forbids to compare a group with the reference: another protocol, or other data."""
        one, other = group.first, self.reference.first
        if one.protocol != other.protocol:
            return f"protocol {one.protocol}, not {other.protocol}"
        if one.data == other.data:
            return None
        if one.data.get("metric") != other.data.get("metric"):
            return f"segmentation measured by {one.data['metric']}, not {other.data['metric']}"
        return "other data"

    def delta_mtl(self, group: Group) -> float | None:
        """Of dense runs: the mean relative gain over the reference's mean measures, where none of those is 0."""
        if self.kind != "dense" or group is self.reference or self.unlike(group):
            return None
        tasks = group.first.tasks
        if tasks.keys() != self.reference.first.tasks.keys() or not group.first.measures:
            return None
        own, other = _means(group), _means(self.reference)
        try:
            return delta_mtl(own, other, tasks) if own and other else None
        except ValueError:  # `_differences` says so
            return None

    def _without_delta(self, group: Group) -> bool:
        asked = self.kind == "dense" and group is not self.reference and bool(group.first.measures)
        return asked and self.delta_mtl(group) is None

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        return [*self._what_is_shown(), *self._differences(), *self.remarks]

    def _what_is_shown(self) -> Iterator[str]:
        measured = "validation" + (" and test" if TEST_MEAN in self.measures else "")
        yield f"{measured}, last checkpoint{self._metric()}; mean ± sample standard deviation over seeds (n - 1)"
        if SCORE in self.measures and any(why_not_official(run) for group in self.groups for run in group.runs):
            yield "score: not over the official test images of all ten domains, and not comparable with published ones"
        tests = sum(self.difference(g, m) is not None and self.difference(g, m).p is not None  # type: ignore[union-attr]
                    for g in self.groups for m in g.first.main)  # fmt: skip
        if tests:
            yield (
                f"p: {TEST} of the difference from {self.reference.name}; {tests} such tests are shown, "
                "not corrected for that number"
            )
        elif len(self.groups) > 1:
            yield "no significance is given: it needs at least two seeds in both groups, and some spread"

    def _metric(self) -> str:
        """How the reference's segmentation was measured, and so that of all groups but those that are said to differ."""
        metric = self.reference.first.data.get("metric")
        return f", metric {metric}" if metric else ""

    def _differences(self) -> Iterator[str]:
        for group in self.groups:
            why = self.unlike(group)
            if why:
                yield f"{group.name}: {why}: not compared with {self.reference.name}"
            elif self._without_delta(group):
                yield f"{group.name}: no Delta-MTL, which needs the same tasks, and no measure of 0 in {self.reference.name}"
            if group.first.protocol == "train+val":
                yield f"{group.name}: protocol train+val, so nothing was validated"
            if not group.first.measures and group.first.protocol == "train":
                yield f"{group.name}: no validation in the summary (imported, or without validation images)"
            commits = {run.commit for run in group.runs}
            if len(commits) > 1:
                told = ", ".join(sorted(str(c)[:8] for c in commits))
                yield f"{group.name}: its seeds were run by different commits ({told})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; accuracies are fractions."""
        return {
            "kind": self.kind, "reference": self.reference.name, "checkpoint": "last", "test": TEST,
            "groups": [self._group(group) for group in self.groups], "notes": self.notes(),
            "published": [{**row.to_dict(), "comparable": not self.apart} for row in self.published],
            "not_comparable": list(self.apart),
        }  # fmt: skip

    def _group(self, group: Group) -> dict[str, Any]:
        measures = {}
        for name in group.first.measures:
            sample, found = group.sample(name), self.difference(group, name)
            if sample is not None:
                told = found.to_dict() if found else {"delta": None, "p": None, "interval_95": None}
                measures[name] = {"n": len(sample.values), "mean": sample.mean, "spread": sample.spread,
                                  "higher_is_better": group.first.better[name], **told}  # fmt: skip
        seconds = [run.seconds for run in group.runs]
        return {
            "name": group.name, "runs": [str(run.path) for run in group.runs], "seeds": [run.seed for run in group.runs],
            "protocol": group.first.protocol, "metric": group.first.data.get("metric"),
            "parameters": group.first.parameters, "seconds": seconds,
            "differs": differing(self.reference.first, group.first), "unlike": self.unlike(group),
            "delta_mtl": self.delta_mtl(group), "measures": measures,
        }  # fmt: skip


def compare(runs: Sequence[Measured], reference: str | None = None, published: bool = False) -> Comparison:
    """Group runs and choose the reference: a run's folder or a group's name (default: the group of the first run).

    Raises UserError for two runs of one group with one seed, a reference that is not there, and data without published rows.
    """
    return set_beside(group_runs(runs), reference, published)


def set_beside(groups: Sequence[Group], reference: str | None = None, published: bool = False) -> Comparison:
    """Groups beside their reference and, where they are asked for, published rows. Raises as `compare` does."""
    runs = [run for group in groups for run in group.runs]
    kind = runs[0].kind
    rows = published_rows(runs[0]) if published else ()
    why = sorted({reason for run in runs for reason in why_not_comparable(run)}) if published else []
    return Comparison(kind, tuple(groups), _reference(groups, reference), rows, tuple(why))


def group_runs(runs: Sequence[Measured]) -> list[Group]:
    """Groups in the order of their first run, named by what tells them apart."""
    by_key: dict[str, list[Measured]] = {}
    for run in runs:
        key = json.dumps([run.config, run.protocol, run.data], sort_keys=True, default=str)
        by_key.setdefault(key, []).append(run)
    for same in by_key.values():
        for place, run in enumerate(same):
            twin = next((other for other in same[:place] if other.seed == run.seed), None)
            if twin is not None:
                raise UserError(
                    f"Expected another seed in every run of one configuration, found seed {run.seed} in "
                    f"{twin.path} and {run.path}."
                )
    sets = [tuple(same) for same in by_key.values()]
    return [Group(name, same) for name, same in zip(_names([same[0] for same in sets]), sets, strict=True)]


def _names(firsts: Sequence[Measured]) -> list[str]:
    """The fewest keys that tell groups apart; where configurations do not, the first run's folder does."""
    keys = list(dict.fromkeys([*FIRST_NAMED, *(key for run in firsts for key in run.config)]))
    named: list[tuple[str, ...]] = [(_value(run, "method"),) for run in firsts]
    for key in keys[1:]:
        longer = [
            (*name, f"{key.rpartition('.')[2]}={_value(run, key)}") for name, run in zip(named, firsts, strict=True)
        ]
        if len(set(longer)) > len(set(named)):
            named = longer
    told = [" ".join(name) for name in named]
    return [name if told.count(name) == 1 else f"{name} ({run.path})" for name, run in zip(told, firsts, strict=True)]


def _value(run: Measured, key: str) -> str:
    value = run.config.get(key, "-")
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def differing(one: Measured, other: Measured) -> dict[str, list[Any]]:
    """The keys in which two runs differ, with both values."""
    keys = sorted({*one.config, *other.config})
    return {
        key: [one.config.get(key), other.config.get(key)]
        for key in keys
        if one.config.get(key) != other.config.get(key)
    }


def _reference(groups: Sequence[Group], wanted: str | None) -> Group:
    if wanted is None:
        return groups[0]
    for group in groups:
        if wanted == group.name or Path(wanted).resolve() in {run.path.resolve() for run in group.runs}:
            return group
    raise UserError(
        f"--reference: expected one of the runs or groups, found '{wanted}'{nearest(wanted, [g.name for g in groups])}."
    )


def _means(group: Group) -> Mapping[str, Mapping[str, float]]:
    means: dict[str, dict[str, float]] = {}
    for name in group.first.measures:
        sample = group.sample(name)
        if sample is None:
            return {}
        task, measure = name.split("/", 1)
        means.setdefault(task, {})[measure] = sample.mean
    return means
