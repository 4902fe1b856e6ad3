"""What is known of a domain: the official ten from `domains.toml`, and any domain as a store or a run carries it."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

from mtan_core.errors import UserError, nearest

Fit = Literal["crop", "squash"]
Colour = tuple[float, float, float]
IDS_PER_DOMAIN = 10**7
FIRST_IMAGE = 200_000  # image id = number * 10^7 + 200000 + i, i from 1


@dataclass(frozen=True)
class DomainSpec:
    """One domain as a store and a run carry it: everything needed to read its images and to name its classes."""

    name: str
    number: int  # d of the ids
    class_names: tuple[str, ...]  # in the order of `categories`; a label is a place in it
    mean: Colour  # RGB, of pixels in [0, 1]
    std: Colour
    mirror: bool  # a mirrored image keeps its label
    fit: Fit
    baseline_error: float | None = None  # error fraction; None: accuracy is shown, points are not
    source: str = "official"  # "miniature" marks the generated challenge
    note: str = ""

    def __post_init__(self) -> None:
        """Raises UserError for a name that cannot be a module's, or numbers out of range."""
        check_name(self.name)
        if not self.class_names:
            raise UserError(f"{self.name}: expected at least one class, found none.")
        if any(s <= 0 for s in self.std):
            raise UserError(f"{self.name}: `std` must be positive, found {self.std}.")
        if self.baseline_error is not None and not 0 < self.baseline_error <= 1:
            raise UserError(f"{self.name}: `baseline_error` must be in (0, 1], found {self.baseline_error}.")

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def category_id(self, label: int) -> int:
        """The official category id of a label (0-based place in `class_names`)."""
        return self.number * IDS_PER_DOMAIN + label + 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any, where: str) -> Self:
        """The spec that `to_dict` gave. Raises UserError for fields that are missing or of another kind."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"])) or "spec"
            message = first["msg"].removeprefix("Value error, ").rstrip(".")
            raise UserError(f"{where}: expected a domain's spec; `{place}`: {message}.") from None


@dataclass(frozen=True)
class OfficialDomain:
    """One table of `domains.toml`; see the comments there."""

    name: str
    number: int
    classes: int
    images: dict[str, int]  # split -> size
    mean: Colour
    std: Colour
    mirror: bool
    fit: Fit
    baseline_error: float
    authors_place: int
    note: str = ""

    def spec(
        self,
        class_names: Sequence[str] | None = None,
        mean: Colour | None = None,
        std: Colour | None = None,
        source: str = "official",
    ) -> DomainSpec:
        """A spec with this domain's rules; names and statistics default to the official ones (names to numbers)."""
        names = tuple(class_names) if class_names is not None else tuple(str(c) for c in range(self.classes))
        return DomainSpec(
            self.name, self.number, names, mean or self.mean, std or self.std,
            self.mirror, self.fit, self.baseline_error, source, self.note,
        )  # fmt: skip


@cache
def official_domains() -> dict[str, OfficialDomain]:
    """The official domains by name, in order of their numbers."""
    tables = tomllib.loads((files("decathlon") / "domains.toml").read_text())
    for table in tables.values():
        table["mean"], table["std"] = tuple(table["mean"]), tuple(table["std"])
    domains = (OfficialDomain(name=name, **table) for name, table in tables.items())
    return {domain.name: domain for domain in sorted(domains, key=lambda domain: domain.number)}


def choose_domains(wanted: str | Iterable[str] | None, known: Sequence[str], where: str) -> list[str]:
    """The wanted domains (a list or "a,b,c"; None or empty: all) in the order of `known`.

    Raises UserError for a domain that `where` has not, suggesting the near one, and for one named twice.
    """
    names = [name.strip() for name in wanted.split(",")] if isinstance(wanted, str) else list(wanted or known)
    for name in names:
        if name not in known:
            raise UserError(f"--domains: {where} has no domain '{name}'{nearest(name, known)}.")
    if len(set(names)) < len(names):
        raise UserError(f"--domains: expected each domain once, found {', '.join(names)}.")
    return [name for name in known if name in names]


def check_name(name: str) -> None:
    """Raises UserError unless `name` can name a domain (and so a folder, a file and a module of the network)."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"A domain's name must be letters, digits, '-' and '_' (no dot), found {name!r}.")
