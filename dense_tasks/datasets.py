"""What a data set's files mean: its classes, and whether its depth is in metres or inverse."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtan_core.errors import UserError, nearest
from mtan_core.files import write_json

DESCRIPTION = "dataset.json"
FORMAT = 1

# Thirteen hues that neighbouring classes do not share; for data sets without colours of their own.
_PALETTE = (
    "#e6194b", "#ffe119", "#a9a9a9", "#f58231", "#8c6239", "#4363d8", "#f032e6", "#bfef45", "#911eb4", "#46f0f0",
    "#000075", "#fabed4", "#3cb44b",
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """`classes` are named in the order of their labels, `colours` are hex codes. `inverse_depth`: the numbers are
    disparities, greater for what is nearer, not metres. `tasks`: those that its files have labels of."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    inverse_depth: bool = False
    tasks: tuple[str, ...] = ("semantic", "depth", "normal")


_NYU_CLASSES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall", "window",
)  # fmt: skip

# name, colour, group of seven; in the order of the data set's 19 training ids, colours and groups of its own scripts
CITYSCAPES_CLASSES = (
    ("road", "#804080", "flat"), ("sidewalk", "#f423e8", "flat"), ("building", "#464646", "construction"),
    ("wall", "#66669c", "construction"), ("fence", "#be9999", "construction"), ("pole", "#999999", "object"),
    ("traffic light", "#faaa1e", "object"), ("traffic sign", "#dcdc00", "object"), ("vegetation", "#6b8e23", "nature"),
    ("terrain", "#98fb98", "nature"), ("sky", "#4682b4", "sky"), ("person", "#dc143c", "human"), ("rider", "#ff0000", "human"),
    ("car", "#00008e", "vehicle"), ("truck", "#000046", "vehicle"), ("bus", "#003c64", "vehicle"),
    ("train", "#005064", "vehicle"), ("motorcycle", "#0000e6", "vehicle"), ("bicycle", "#770b20", "vehicle"),
)  # fmt: skip
CITYSCAPES_GROUPS = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
_GROUP_COLOURS = ("#804080", "#464646", "#dcdc00", "#6b8e23", "#4682b4", "#dc143c", "#00008e")
_CITY_TASKS = ("semantic", "depth")

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("nyuv2", _NYU_CLASSES, _PALETTE),
        Dataset("cityscapes2", ("background", "human or vehicle"), ("#a9a9a9", "#dc143c"), True, _CITY_TASKS),
        Dataset("cityscapes7", CITYSCAPES_GROUPS, _GROUP_COLOURS, True, _CITY_TASKS),
        Dataset(
            "cityscapes19",
            tuple(name for name, _, _ in CITYSCAPES_CLASSES),
            tuple(colour for _, colour, _ in CITYSCAPES_CLASSES),
            True,
            _CITY_TASKS,
        ),
    )
}


def find_dataset(root: Path, name: str | None = None) -> Dataset:
    """The data set named, else the one that `<root>/dataset.json` names, else NYUv2, as the authors' roots say nothing.

    Raises UserError for a name that is not known, one that contradicts the file, and a file that cannot be read.
    """
    if name is not None and name not in DATASETS:
        raise UserError(f"Expected the name of a data set, found '{name}'{nearest(name, DATASETS)}.")
    said = _described(root)
    if said is None:
        return DATASETS[name or "nyuv2"]
    if name is not None and name != said:
        raise UserError(f"{root}: expected the data set '{name}', found '{said}' in {DESCRIPTION}.")
    return DATASETS[said]


def _described(root: Path) -> str | None:
    path = root / DESCRIPTION
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        version, name = said["format"], said["dataset"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: expected a JSON object with the keys format and dataset, found something else."
        ) from None
    if version != FORMAT:
        raise UserError(
            f"{path}: expected format {FORMAT}, found {version}: prepare the data set anew with this version."
        )
    if name not in DATASETS:
        raise UserError(f"{path}: expected a known data set, found {name!r}{nearest(str(name), DATASETS)}.")
    return str(name)


def describe(root: Path, dataset: Dataset, options: dict[str, Any]) -> None:
    """Write `<root>/dataset.json`: the data set, its classes and how it was made."""
    document = {
        "format": FORMAT,
        "dataset": dataset.name,
        "classes": dataset.classes,
        "inverse_depth": dataset.inverse_depth,
    }
    write_json(root / DESCRIPTION, document | {"prepared": options}, indent=1)
