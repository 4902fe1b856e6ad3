"""What `evaluate`, `submit` and `quickstart` say of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decathlon.batches import views_of
from decathlon.data.store import Store, StoredSplit
from decathlon.evaluation import CHUNK, Answers, evaluate_domain, predict_domain, reestimate_domain
from decathlon.results import write_results, zip_results
from decathlon.runs import Run
from decathlon.specs import choose_domains
from mtan_core.errors import UserError
from mtan_core.files import check_output
from mtan_core.progress import progress


@dataclass(frozen=True)
class Evaluation:
    """A run's answers to a split of every chosen domain."""

    run: Run
    split: str
    answers: dict[str, Answers]
    reestimated: bool
    absent: list[str]  # domains of the run that the store lacks

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: accuracies are fractions, losses nats."""
        rows = {
            domain: {
                "accuracy": answer.tally.accuracy, "correct": answer.tally.correct,
                "seen": answer.tally.seen, "loss": round(answer.tally.mean_loss, 6),
            }
            for domain, answer in self.answers.items()
        }  # fmt: skip
        return {
            "split": self.split, "protocol": self.run.config.protocol, "checkpoint": self.run.choice,
            "reestimated": self.reestimated, "domains": rows,
        }  # fmt: skip

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        return notes(self.run, self.split, list(self.answers), self.absent)


def notes(run: Run, split: str, domains: Sequence[str], absent: Sequence[str]) -> list[str]:
    """What is to be said of a run's answers to a split; `absent` are the run's domains that the store lacks."""
    told = []
    if split == "val" and run.config.protocol == "train+val":
        told.append("val was trained on (protocol train+val): these accuracies say nothing about new images")
    if any(run.spec(domain).source == "miniature" for domain in domains):
        told.append("this is the generated miniature: not comparable with published numbers")
    told += [f"the run's {name} is not in the store and was left out" for name in absent]
    told += [f"{d}: {run.spec(d).note}" for d in domains if run.spec(d).note and split == "val"]
    return told


def evaluate_run(
    run: Run, store: Store, split: str = "val", domains: str | None = None, reestimate: bool = False, chunk: int = CHUNK
) -> Evaluation:
    """Evaluate a run on a labelled split.

    With `reestimate`, batch-norm statistics are made anew from the training split, in memory only. Raises UserError for
    the test split, which only `submit` may look at.
    """
    if split not in ("val", "train"):
        why = ": only `submit` runs a network on test images" if split == "test" else ""
        raise UserError(f"evaluate: expected --split val or train, found {split}{why}.")
    names = common_domains(run, store, domains)
    answers = {}
    with progress(f"evaluating {split}", total=len(names)) as advance:
        for name in names:
            if reestimate:
                reestimate_domain(run.network, name, run.images(store.split(name, "train")), run.config.precision)
            images = run.images(checked_split(run, store, name, split))
            answers[name] = evaluate_domain(run.network, name, images, run.config.precision, chunk)
            advance(note=name)
    return Evaluation(run, split, answers, reestimate, absent_domains(run, store))


def common_domains(run: Run, store: Store, wanted: str | None) -> list[str]:
    """The wanted domains (default: all that run and store share). Raises UserError when there is none."""
    shared = [name for name in run.specs if name in store.domains]
    if not shared:
        raise UserError(f"The store has none of the run's domains ({', '.join(run.specs)}).")
    return choose_domains(wanted, shared, "the run or the store")


def absent_domains(run: Run, store: Store) -> list[str]:
    """The run's domains that the store lacks."""
    return [name for name in run.specs if name not in store.domains]


def checked_split(run: Run, store: Store, domain: str, split: str) -> StoredSplit:
    """A split whose classes are those the run was trained on. Raises UserError for another list, and for no images."""
    stored = store.split(domain, split)
    if not len(stored):
        raise UserError(f"{domain}: expected {split} images, found none in the store.")
    own = run.spec(domain)
    if stored.spec.classes != own.classes or (stored.spec.class_names != own.class_names and own.source != "official"):
        raise UserError(
            f"{domain}: expected the run's {own.classes} classes, found another list in the store ({stored.spec.classes})."
        )
    known = run.folder.divisions().get(domain, {}).get(split)
    if known is not None and known != stored.digest():
        raise UserError(
            f"{domain}: expected the {split} split that the run was made beside, found another division: "
            "some of its images may have been trained on."
        )
    return stored


def submit_run(
    run: Run,
    store: Store,
    out: Path,
    split: str = "test",
    domains: str | None = None,
    views: bool = False,
    archive: bool = False,
) -> dict[str, Any]:
    """Write `results.json` for every test image (or, as practice, val image); returns counts and what was left out.

    Raises UserError, before anything is predicted, where `out` (or with `archive` the .zip beside it) cannot be written.
    """
    if out.suffix.lower() == ".zip":
        raise UserError(f"--out: expected the name of a JSON file (--zip writes the archive beside it), found {out}.")
    check_output(out)
    if archive:
        check_output(out.with_suffix(".zip"))
    names = common_domains(run, store, domains)
    chosen = [name for name in names if split in store.splits(name)]
    if not chosen:
        raise UserError(f"submit: expected a {split} split, found none in the store for {', '.join(names)}.")
    images, categories = [], []
    with progress(f"predicting {split}", total=len(chosen)) as advance:
        for name in chosen:
            source = run.images(checked_split(run, store, name, split))
            labels = predict_domain(
                run.network, name, source, run.config.precision, views_of(source) if views else None
            )
            images.append(source.split.image_ids)
            categories.append(np.array([run.spec(name).category_id(int(label)) for label in labels]))
            advance(note=name)
    write_results(out, np.concatenate(images).tolist(), np.concatenate(categories).tolist())
    written = {"results": str(out), "split": split, "images": int(sum(map(len, images))), "views": views,
               "protocol": run.config.protocol, "checkpoint": run.choice, "domains": chosen,
               "without_split": [name for name in names if name not in chosen], "not_in_store": absent_domains(run, store)}  # fmt: skip
    if archive:
        written["zip"] = str(zip_results(out))
    return written
