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
from mtan_core.errors import UserError

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
    predictions, answers = _matched(results, annotations, domains)
    missing = _missing(predictions, answers)
    if strict and any(map(len, missing.values())):
        told = "; ".join(f"{name}: {listed(ids)}" for name, ids in missing.items() if len(ids))
        raise UserError(f"{results}: expected a prediction for every image, missing are {told}.")
    checks = {a.domain: DomainCheck(len(a.image_ids), len(missing[a.domain])) for a in answers}
    return Validation(answers[0].split, len(predictions.image_ids), checks, (*_missing_notes(checks), *_notes(answers)))


def score_results(
    results: Path, annotations: Path, domains: Domains = None, baselines: Mapping[str, float] | None = None
) -> Scored:
    """Validate a submission as `validate_results` does, and score it against labelled annotation files.

    `baselines` (error fractions) gives points to domains that are not official. Raises UserError also for stripped files.
    """
    predictions, answers = _matched(results, annotations, domains)
    errors = {answer.domain: _error(predictions, answer) for answer in answers}
    points, missing = decathlon_points(errors, baselines), _missing(predictions, answers)
    scored = {
        a.domain: DomainScore(errors[a.domain], points[a.domain], len(a.image_ids), len(missing[a.domain]))
        for a in answers
    }
    notes = (*_missing_notes(scored), *_notes(answers), *_score_notes(answers, points))
    return Scored(decathlon_score(errors, baselines), scored, answers[0].split, notes)


def _matched(results: Path, annotations: Path, domains: Domains) -> tuple[Predictions, list[Answers]]:
    """The valid predictions for the chosen domains, ascending by image, and the answers of the split that they are for."""
    predictions = read_results(results)
    wanted = domains if domains is None or isinstance(domains, str) else list(domains)
    answers = _answers_for(predictions.image_ids, annotations, wanted)
    order = np.argsort(predictions.image_ids, kind="stable")
    images, categories = predictions.image_ids[order], predictions.category_ids[order]
    if wanted:
        ours = _concerned(images, answers)
        images, categories = images[ours], categories[ours]
    problems = [*_bad_images(images, answers, annotations), *_bad_categories(images, categories, answers)]
    if problems:
        raise UserError(f"{results}: refused for {'; '.join(problems)}.")
    return Predictions(images, categories), answers


def _answers_for(images: Ids, source: Path, domains: str | Sequence[str] | None) -> list[Answers]:
    """The test answers, unless only the val answers know any of the predicted images."""
    test = read_answers(source, "test", domains)
    if test and (not len(images) or _any_known(images, test)):
        return test
    val = read_answers(source, "val", domains)
    if val and (not test or _any_known(images, val)):
        return val
    if not test:
        inside = source / "annotations"
        hint = f"; is it {inside}?" if inside.is_dir() else ""
        names = "'<domain>_test.json' (or '_test_stripped.json', '_val.json')"
        raise UserError(f"{source}: expected annotation files named {names}, found none{hint}.")
    return test


def _any_known(images: Ids, answers: Sequence[Answers]) -> bool:
    return any(np.isin(answer.image_ids, images).any() for answer in answers)


def _concerned(images: Ids, answers: Sequence[Answers]) -> NDArray[np.bool_]:
    """Which predictions concern the chosen domains: all but those whose id carries the number of another domain."""
    numbers = images // IDS_PER_DOMAIN
    known = np.isin(images, np.concatenate([answer.image_ids for answer in answers]))
    return known | (numbers < 1) | np.isin(numbers, [answer.number for answer in answers])


def _bad_images(images: Ids, answers: Sequence[Answers], source: Path) -> list[str]:
    """What is wrong with the (ascending) predicted images: unknown or there more than once."""
    problems = []
    unknown = np.unique(images[~np.isin(images, np.concatenate([answer.image_ids for answer in answers]))])
    if len(unknown):
        numbers = set((unknown // IDS_PER_DOMAIN).tolist()) - {answer.number for answer in answers}
        absent = [name for name, domain in official_domains().items() if domain.number in numbers]
        hint = f" ({source} has no {answers[0].split} file of {', '.join(absent)}; see --domains)" if absent else ""
        problems.append(f"unknown image ids: {listed(unknown)}{hint}")
    twice = np.unique(images[1:][images[1:] == images[:-1]])
    if len(twice):
        problems.append(f"images predicted more than once: {listed(twice)}")
    return problems


def _bad_categories(images: Ids, categories: Ids, answers: Sequence[Answers]) -> list[str]:
    """What is wrong with the categories of the known images: of another domain, or in no list at all."""
    everything = np.concatenate([answer.category_ids for answer in answers])
    foreign: list[str] = []
    unknown: list[str] = []
    for answer in answers:
        wrong = np.isin(images, answer.image_ids) & ~np.isin(categories, answer.category_ids)
        elsewhere = wrong & np.isin(categories, everything)
        for places, told in ((elsewhere, foreign), (wrong & ~elsewhere, unknown)):
            pairs = zip(images[places].tolist(), categories[places].tolist(), strict=True)
            told += [f"{category} for image {image} of {answer.domain}" for image, category in pairs]
    problems = []
    if foreign:
        problems.append(f"categories of another domain: {listed(foreign)}")
    if unknown:
        problems.append(f"category ids that are not in the domain's list: {listed(unknown)}")
    return problems


def _missing(predictions: Predictions, answers: Sequence[Answers]) -> dict[str, Ids]:
    """The images of each domain that have no prediction."""
    return {a.domain: np.setdiff1d(a.image_ids, predictions.image_ids, assume_unique=True) for a in answers}


def _error(predictions: Predictions, answer: Answers) -> float:
    """The error fraction over all images of a domain."""
    if answer.labels is None:
        raise UserError(
            f"{answer.where}: expected labels to score with, found a file without; "
            f"a labelled one is named '{answer.domain}_{answer.split}.json' (`validate` needs no labels)."
        )
    ours = np.isin(predictions.image_ids, answer.image_ids)
    places = np.searchsorted(answer.image_ids, predictions.image_ids[ours])
    correct = int((answer.labels[places] == predictions.category_ids[ours]).sum())
    return (len(answer.image_ids) - correct) / len(answer.image_ids)


def _missing_notes(domains: Mapping[str, DomainCheck | DomainScore]) -> list[str]:
    told = [
        f"{name} {'all ' if domain.missing == domain.images else ''}{domain.missing:,} of {domain.images:,}"
        for name, domain in domains.items()
        if domain.missing
    ]
    return [f"Images without a prediction, which count as errors: {', '.join(told)}."] if told else []


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
