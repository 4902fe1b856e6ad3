"""Published Decathlon results: only rows that were seen in a source, which `published.csv` names with each."""

import csv
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from decathlon.specs import official_domains
from experiments.compare.measured import Measured


@dataclass(frozen=True)
class Published:
    """One published network. Accuracies are fractions of the official test images; `parameters` is a multiple of one
    single-task network, empty where it was not seen."""

    method: str
    parameters: str
    accuracy: dict[str, float]
    score: float
    source: str

    @property
    def mean(self) -> float:
        return sum(self.accuracy.values()) / len(self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "mean": self.mean}


def published_rows() -> tuple[Published, ...]:
    """The rows that are shipped, in the order of the table."""
    lines = (files("experiments.compare") / "published.csv").read_text(encoding="utf-8").splitlines()
    names = list(official_domains())
    return tuple(
        Published(
            row["method"], row["params"], {name: float(row[name]) / 100 for name in names},
            float(row["score"]), row["source"],
        )
        for row in csv.DictReader(lines)
    )  # fmt: skip


def why_not_comparable(run: Measured) -> list[str]:
    """What forbids to set a run beside published rows; empty where data and protocol are the same."""
    names = list(official_domains())
    reasons = []
    if run.kind != "decathlon" or set(run.official) != set(run.data.get("domains", ())):
        reasons.append(f"{run.path}: its data are not the official ones in their official split sizes")
    if set(run.data.get("domains", ())) != set(names):
        reasons.append(f"{run.path}: it has not exactly the ten official domains")
    if run.protocol != "train+val":
        reasons.append(f"{run.path}: protocol {run.protocol}; published: train+val, and test accuracies")
    return reasons
