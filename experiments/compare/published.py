"""Published results: only rows that were seen in a source, which the tables beside this file name with each."""

import csv
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from decathlon.specs import official_domains
from experiments.compare.measured import Measured
from mtan_core.errors import UserError


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


@dataclass(frozen=True)
class PublishedDense:
    """One published dense network, with its measures on the validation images by task and name; shares are fractions."""

    method: str
    parameters: str
    weighting: str
    measures: dict[str, float]
    source: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


DENSE_SIZES = {
    "nyuv2": (288, 384),
    "cityscapes7": (128, 256),
}  # data sets with published rows, and the images' size there


def published_rows(run: Measured) -> tuple[Published, ...] | tuple[PublishedDense, ...]:
    """The rows that are shipped for a run's data, in the order of the table. Raises UserError where there are none."""
    if run.kind == "decathlon":
        return decathlon_rows()
    dataset = run.data["dataset"]
    if dataset not in DENSE_SIZES:
        raise UserError(
            f"--published: expected runs on {' or '.join(DENSE_SIZES)}, found {dataset}, of which none are shipped."
        )
    fixed = ("method", "weighting", "params", "source")
    return tuple(
        PublishedDense(row["method"], row["params"], row["weighting"],
                       {name: float(value) for name, value in row.items() if name not in fixed}, row["source"])
        for row in _read(f"published_{dataset}.csv")
    )  # fmt: skip


def decathlon_rows() -> tuple[Published, ...]:
    """The published networks on the ten domains."""
    names = list(official_domains())
    return tuple(
        Published(
            row["method"], row["params"], {name: float(row[name]) / 100 for name in names},
            float(row["score"]), row["source"],
        )
        for row in _read("published.csv")
    )  # fmt: skip


def _read(name: str) -> list[dict[str, str]]:
    lines = (files("experiments.compare") / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(lines))


def why_not_comparable(run: Measured) -> list[str]:
    """What forbids to set a run beside published rows; empty where data and protocol are the same."""
    if run.kind == "dense":
        return _why_not_dense(run)
    reasons = why_not_official(run)
    if run.protocol != "train+val":
        reasons.append(f"{run.path}: protocol {run.protocol}; published: train+val, and test accuracies")
    return reasons


def why_not_official(run: Measured) -> list[str]:
    """In what a Decathlon run's data are not those of the challenge."""
    reasons = []
    if set(run.official) != set(run.data["domains"]):
        reasons.append(f"{run.path}: its data are not the official ones in their official split sizes")
    if set(run.data["domains"]) != set(official_domains()):
        reasons.append(f"{run.path}: it has not exactly the ten official domains")
    return reasons


def _why_not_dense(run: Measured) -> list[str]:
    """The paper's way to measure is not offered in all parts, so that dense rows always stand apart."""
    reasons = ["published: means over the last ten epochs, errors of depth and normals as means over batches"]
    size, wanted = tuple(run.data["size"] or ()), DENSE_SIZES[run.data["dataset"]]
    if size != wanted:
        reasons.append(
            f"{run.path}: images of {'x'.join(map(str, size)) or 'unknown size'}; published: {wanted[0]}x{wanted[1]}"
        )
    if run.data["metric"] != "legacy":
        reasons.append(f'{run.path}: metric "{run.data["metric"]}"; published: "legacy"')
    return reasons
