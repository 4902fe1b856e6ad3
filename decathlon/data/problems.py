"""What is wrong with official files: collected over a whole pass, told together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal[
    "annotations",  # a file of annotations that is missing, no JSON, or incomplete: its whole domain cannot be made
    "missing image",
    "unreadable image",
    "wrong size",
    "image without annotation",
    "annotation without image",
    "image in two splits",
    "duplicate id",
    "id of another domain",
    "category outside the list",
]
SHOWN = 20
PROBLEMS = "problems.json"  # in the store


@dataclass(frozen=True)
class Problem:
    """One thing wrong, with the file where it is."""

    domain: str
    kind: Kind
    file: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.domain}: {self.kind}: {self.file}{f' ({self.detail})' if self.detail else ''}"

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def summary(problems: Iterable[Problem]) -> str:
    """The first problems, a line each, and how many there are of every kind."""
    problems = list(problems)
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    kinds = Counter(problem.kind for problem in problems)
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
    return "\n".join([*lines, f"  in all: {counts}"])
