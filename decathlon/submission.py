"""A submission against the annotations: what is refused, what is missing, and the score.

How the challenge's server treated odd submissions is not known. The rules here: unknown image ids, duplicates and categories
that are not of the image's domain are refused by name; a missing image counts as an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlon.answers import Answers, Ids, Split, listed, read_answers
from decathlon.results import Predictions, read_results, write_results, zip_results
from decathlon.scoring import decathlon_points, decathlon_score
from decathlon.specs import IDS_PER_DOMAIN, official_domains
from mtan_core.errors import UserError, nearest

__all__ = [
    "DomainCheck",
    "DomainScore",
    "Scored",
    "Validation",
    "read_results",
    "score_results",
    "validate_results",
    "write_results",
    "zip_results",
]

Domains = str | Iterable[str] | None  # "a,b", a list, or None for all


@dataclass(frozen=True)
class DomainCheck:
    """How much of a domain a valid submission covers."""

    images: int
    missing: int


@dataclass(frozen=True)
class Validation:
    """A submission that may be scored; `notes` are sentences for people."""

    split: Split
    predictions: int
    domains: dict[str, DomainCheck]
    notes: tuple[str, ...]

    @property
    def missing(self) -> int:
        return sum(check.missing for check in self.domains.values())

    def to_dict(self) -> dict[str, Any]:
        domains = {name: asdict(check) for name, check in self.domains.items()}
        return {"valid": True, "split": self.split, "predictions": self.predictions, "domains": domains}


@dataclass(frozen=True)
class DomainScore:
    """One domain of a scored submission."""

    error: float  # fraction of all images, a missing one counted as wrong
    points: float | None  # None: the domain has no baseline
    images: int
    missing: int


@dataclass(frozen=True)
class Scored:
    """A scored submission; `notes` are sentences for people, such as why the score is not comparable."""

    score: float
    domains: dict[str, DomainScore]
    split: Split
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"score": self.score, "domains": {name: asdict(domain) for name, domain in self.domains.items()}}


def validate_results(results: Path, annotations: Path, domains: Domains = None, strict: bool = False) -> Validation:
    """Check a `results.json` (or its zip) against labelled or stripped annotation files, a folder or a zip of them.

    The split is the one that the image ids belong to: test, or val where none of them is a known test image.
    With `domains`, predictions for other domains are passed over.
    Raises UserError for unknown images, duplicates and categories that are not of the image's domain, each with its id,
    and with `strict` for missing images too.
    """
    matched, others = _valid(results, annotations, domains)
    missing = {answer.domain: np.setdiff1d(answer.image_ids, own.image_ids) for answer, own in matched}
    if strict and any(map(len, missing.values())):
        told = "; ".join(f"{name}: {listed(ids)}" for name, ids in missing.items() if len(ids))
        raise UserError(f"{results}: expected a prediction for every image, missing are {told}.")
    answers = [answer for answer, _ in matched]
    checks = {a.domain: DomainCheck(len(a.image_ids), len(missing[a.domain])) for a in answers}
    predictions = sum(len(own.image_ids) for _, own in matched)
    notes = (*_missing_notes(checks), *_other_notes(others), *_notes(answers))
    return Validation(answers[0].split, predictions, checks, notes)


def score_results(
    results: Path, annotations: Path, domains: Domains = None, baselines: Mapping[str, float] | None = None
) -> Scored:
    """Validate a submission as `validate_results` does, and score it against labelled annotation files.

    `baselines` (error fractions) gives points to domains that are not official. Raises UserError also for stripped files
    and for a baseline of a domain that is official or not scored.
    """
    matched, others = _valid(results, annotations, domains)
    custom = [answer.domain for answer, _ in matched if answer.domain not in official_domains()]
    for name in baselines or {}:
        if name not in custom:
            hint = nearest(name, custom) if custom else ""
            raise UserError(f"--baseline: expected a scored domain that is not official, found '{name}'{hint}.")
    errors = {answer.domain: _error(answer, own) for answer, own in matched}
    points = decathlon_points(errors, baselines)
    scored = {
        a.domain: DomainScore(
            errors[a.domain], points[a.domain], len(a.image_ids), len(a.image_ids) - len(own.image_ids)
        )
        for a, own in matched
    }
    answers = [answer for answer, _ in matched]
    notes = (*_missing_notes(scored), *_other_notes(others), *_notes(answers), *_score_notes(answers, points))
    return Scored(decathlon_score(errors, baselines), scored, answers[0].split, notes)


def _valid(results: Path, annotations: Path, domains: Domains) -> tuple[list[tuple[Answers, Predictions]], int]:
    """The chosen domains' answers, each with the predictions for it, and how many predictions are for domains not chosen.

    Raises UserError with all that is wrong with those for the chosen ones.
    """
    wanted = domains if domains is None or isinstance(domains, str) else list(domains)
    predictions = read_results(results)
    answers, owners = _answers_for(predictions.image_ids, annotations, wanted)
    unknown, others = predictions.image_ids[owners < 0], 0
    if wanted:
        kept = _of_no_other_domain(unknown, answers)
        unknown, others = unknown[kept], int((~kept).sum())
    matched = [(answer, predictions.where(owners == place)) for place, answer in enumerate(answers)]
    problems = [*_bad_images(unknown, matched, annotations), *_bad_categories(matched)]
    if problems:
        raise UserError(f"{results}: refused for {'; '.join(problems)}.")
    return matched, others


def _answers_for(images: Ids, source: Path, domains: str | Sequence[str] | None) -> tuple[list[Answers], Ids]:
    """The test answers, unless only the val answers know any of the predicted images; and `_owners` of these images."""
    test = read_answers(source, "test", domains)
    owners = _owners(images, test)
    if test and (not len(images) or (owners >= 0).any()):
        return test, owners
    val = read_answers(source, "val", domains)
    val_owners = _owners(images, val)
    if val and (not test or (val_owners >= 0).any()):
        return val, val_owners
    if not test:
        inside = source / "annotations"
        hint = f" (there is {inside})" if inside.is_dir() else ""
        names = "'<domain>_test.json' (or '_test_stripped.json', '_val.json')"
        raise UserError(f"{source}: expected annotation files named {names}, found none{hint}.")
    return test, owners


def _owners(images: Ids, answers: Sequence[Answers]) -> Ids:
    """For each predicted image the place in `answers` of the domain that it belongs to, -1 if to none."""
    if not answers:
        return np.full(len(images), -1)
    known = np.concatenate([answer.image_ids for answer in answers])
    owners = np.repeat(np.arange(len(answers)), [len(answer.image_ids) for answer in answers])
    order = np.argsort(known, kind="stable")
    known, owners = known[order], owners[order]
    shared = np.flatnonzero(known[1:] == known[:-1])
    if len(shared):
        one, other = (answers[owners[place]].where for place in (shared[0], shared[0] + 1))
        raise UserError(f"{one} and {other}: expected each image id in one domain, found {known[shared[0]]} in both.")
    places = np.searchsorted(known, images).clip(max=len(known) - 1)
    return np.where(known[places] == images, owners[places], -1)


def _of_no_other_domain(unknown: Ids, answers: Sequence[Answers]) -> NDArray[np.bool_]:
    """Which unknown images cannot be those of a domain that was not chosen, by the domain's number in their ids."""
    numbers = unknown // IDS_PER_DOMAIN
    return (numbers < 1) | np.isin(numbers, [answer.number for answer in answers])


def _bad_images(unknown: Ids, matched: Sequence[tuple[Answers, Predictions]], source: Path) -> list[str]:
    """What is wrong with the predicted images: unknown, or there more than once."""
    problems = []
    if len(unknown):
        numbers = set(np.unique(unknown // IDS_PER_DOMAIN).tolist()) - {answer.number for answer, _ in matched}
        absent = [name for name, domain in official_domains().items() if domain.number in numbers]
        split = matched[0][0].split
        hint = f" ({source} has no {split} file of {', '.join(absent)}; --domains leaves domains out)" if absent else ""
        problems.append(f"unknown image ids: {listed(np.unique(unknown))}{hint}")
    ids = [np.sort(own.image_ids) for _, own in matched]
    twice = np.unique(np.concatenate([own[1:][own[1:] == own[:-1]] for own in ids]))
    if len(twice):
        problems.append(f"images predicted more than once: {listed(twice)}")
    return problems


def _bad_categories(matched: Sequence[tuple[Answers, Predictions]]) -> list[str]:
    """What is wrong with the categories of the known images: of another domain, or in no list at all."""
    everything = np.concatenate([answer.category_ids for answer, _ in matched])
    foreign: list[str] = []
    unknown: list[str] = []
    for answer, own in matched:
        wrong = own.where(~np.isin(own.category_ids, answer.category_ids))
        elsewhere = np.isin(wrong.category_ids, everything)
        for bad, told in ((wrong.where(elsewhere), foreign), (wrong.where(~elsewhere), unknown)):
            pairs = zip(bad.image_ids.tolist(), bad.category_ids.tolist(), strict=True)
            told += [f"{category} for image {image} of {answer.domain}" for image, category in pairs]
    problems = []
    if foreign:
        problems.append(f"categories of another domain: {listed(foreign)}")
    if unknown:
        problems.append(f"category ids that are not in the domain's list: {listed(unknown)}")
    return problems


def _error(answer: Answers, own: Predictions) -> float:
    """The error fraction over all images of a domain, those without a prediction counted as wrong."""
    if answer.labels is None:
        raise UserError(
            f"{answer.where}: expected labels to score with, found a file without; "
            f"a labelled one is named '{answer.domain}_{answer.split}.json' (`validate` needs no labels)."
        )
    places = np.searchsorted(answer.image_ids, own.image_ids)
    correct = int((answer.labels[places] == own.category_ids).sum())
    return (len(answer.image_ids) - correct) / len(answer.image_ids)


def _missing_notes(domains: Mapping[str, DomainCheck | DomainScore]) -> list[str]:
    told = [
        f"{name} {'all ' if domain.missing == domain.images else ''}{domain.missing:,} of {domain.images:,}"
        for name, domain in domains.items()
        if domain.missing
    ]
    return [f"Images without a prediction, which count as errors: {', '.join(told)}."] if told else []


def _other_notes(others: int) -> list[str]:
    return [f"Passed over, as not of the chosen domains: {others:,} predictions."] if others else []


def _notes(answers: Sequence[Answers]) -> list[str]:
    """What is to be said of the domains and the split, whether validated or scored."""
    official = official_domains()
    absent = [name for name in official if name not in {answer.domain for answer in answers}]
    part = f"A part of the challenge: {len(official) - len(absent)} of {len(official)} domains, without {', '.join(absent)}."
    practice = "These are predictions for the val split, the practice form of a submission."
    return [*([part] if absent else []), *([practice] if answers[0].split == "val" else [])]


def _score_notes(answers: Sequence[Answers], points: Mapping[str, float | None]) -> list[str]:
    """Which domains have no points, and why the score cannot be set beside published ones, if it cannot."""
    notes = [f"{name} has no baseline error, and so no points." for name, value in points.items() if value is None]
    official = official_domains()
    sizes = {a.domain: (len(a.image_ids), official[a.domain].images["test"]) for a in answers if a.domain in official}
    other = [f"{name} has {found:,} images, not {size:,}" for name, (found, size) in sizes.items() if found != size]
    if any(answer.is_miniature for answer in answers):
        notes.append("These are images of the generated miniature: the score is not comparable with published ones.")
    elif other:
        notes.append(f"Not the official test split ({other[0]}): the score is not comparable with published ones.")
    return notes
