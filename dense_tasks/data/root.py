"""A root in the authors' npy layout: `<root>/{train,val}/{image,label,depth,normal}/<n>.npy`, checked before it is used."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dense_tasks.data.arrays import IMAGE, shape_text
from dense_tasks.data.scan import Facts, File, scan
from dense_tasks.datasets import Dataset, find_dataset
from dense_tasks.tasks import Task, choose_tasks
from mtan_core.errors import UserError

SPLITS = ("train", "val")
_TOLD = 8  # problems in one message


@dataclass(frozen=True)
class Root:
    """A root whose files were looked at. `frames` are the numbers of each split's images as they are written in the file
    names, in order. `unlabelled[split][task]`: the frames without any label of the task. `warnings` are whole sentences."""

    path: Path
    dataset: Dataset
    tasks: Mapping[str, Task]
    frames: Mapping[str, tuple[str, ...]]
    size: tuple[int, int]  # height, width of every image
    unlabelled: Mapping[str, Mapping[str, frozenset[str]]]
    warnings: tuple[str, ...]

    def file(self, split: str, folder: str, frame: str) -> Path:
        """Where an array lies."""
        return self.path / split / folder / f"{frame}.npy"


def open_root(
    path: Path,
    tasks: Sequence[str] | None = None,
    dataset: str | None = None,
    splits: Sequence[str] = SPLITS,
    missing_labels: bool = False,
    divisor: int = 32,
) -> Root:
    """Look at all files that these tasks and splits need.

    `dataset` is asked for where `<root>/dataset.json` does not tell (default NYUv2). `missing_labels` allows images without a
    task's file; one whose labels are all undefined is always allowed, and counted in a warning. `divisor`: what height and
    width must divide by, 32 for a SegNet. Raises UserError, all problems together: missing folders, files without partner,
    arrays that cannot be read, differ in size or hold wrong numbers, and tasks without any label in a split.
    """
    if not path.is_dir():
        raise UserError(f"Expected a folder with {' and '.join(splits)}, found none at {path}.")
    found = find_dataset(path, dataset)
    chosen = choose_tasks(tasks, found)
    folders = [IMAGE, *(task.folder for task in chosen.values())]
    there = {split: {folder: _frames(path / split / folder) for folder in folders} for split in splits}
    problems = [problem for split in splits for problem in _unpaired(split, there[split], missing_labels)]
    files = {
        f"{split}/{folder}/{frame}.npy": File(path / split / folder / f"{frame}.npy", task)
        for split in splits
        for folder, task in zip(folders, [None, *chosen.values()], strict=True)
        for frame in there[split][folder] or ()
    }
    facts = scan(path, files)
    size = Counter(fact.size for name, fact in facts.items() if fact.size and f"/{IMAGE}/" in name).most_common(1)
    height, width = size[0][0] if size else (0, 0)
    problems += _grouped(_wrong(facts, (height, width)))
    if height % divisor or width % divisor:
        problems.append(f"images of {height}x{width}, which does not divide by {divisor}")
    unlabelled = {
        split: {task.name: _unlabelled(split, task.folder, there[split], facts) for task in chosen.values()}
        for split in splits
    }
    frames = {split: tuple(there[split][IMAGE] or ()) for split in splits}
    problems += _nothing_to_learn(unlabelled, frames) if not problems else []
    _refuse(path, f"{found.name} ({', '.join(chosen)})", problems)
    return Root(path, found, chosen, frames, (height, width), unlabelled, tuple(_warnings(path, unlabelled, frames)))


def _frames(folder: Path) -> list[str] | None:
    """The names of a folder's arrays without their ending, in the order of their numbers; None if there is no folder."""
    if not folder.is_dir():
        return None
    names = [file.stem for file in folder.glob("*.npy") if not file.name.startswith(".")]
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


def _unpaired(split: str, there: Mapping[str, list[str] | None], missing_labels: bool) -> Iterator[str]:
    """Folders that are missing or empty, files with other names than numbers, and files without a partner."""
    images = there[IMAGE]
    for folder, frames in there.items():
        if frames is None:
            yield f"no folder {split}/{folder}"
            continue
        odd = [name for name in frames if not name.isdecimal()]
        if odd:
            yield f"{split}/{folder}/{odd[0]}.npy, whose name is no number"
        if not frames:
            yield f"no file <n>.npy in {split}/{folder}"
        elif images and folder != IMAGE:
            yield from _differences(split, folder, frames, images, missing_labels)


def _differences(split: str, folder: str, frames: list[str], images: list[str], missing_labels: bool) -> Iterator[str]:
    lacking = [name for name in images if name not in set(frames)]
    beyond = [name for name in frames if name not in set(images)]
    counts = f"{len(frames)} files in {split}/{folder} and {len(images)} in {split}/{IMAGE}"
    if lacking and not missing_labels:
        yield f"{counts}: no {split}/{folder}/{lacking[0]}.npy"
    elif beyond:
        yield f"{counts}: no {split}/{IMAGE}/{beyond[0]}.npy"


def _wrong(facts: Mapping[str, Facts], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for name, fact in facts.items():
        if fact.problem:
            yield name, fact.problem
        elif fact.size != size:
            yield name, f"{shape_text(fact.size or ())} pixels where images have {shape_text(size)}"


def _grouped(wrong: Iterator[tuple[str, str]]) -> list[str]:
    """One line for all files of a folder with the same kind of problem."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, problem in wrong:
        groups.setdefault((name.rpartition("/")[0], re.sub(r"[\d.]+", "", problem)), []).append((name, problem))
    return [
        f"{same[0][0]} with {same[0][1]}" + (f" (and {len(same) - 1} more like it)" if len(same) > 1 else "")
        for same in groups.values()
    ]


def _unlabelled(
    split: str, folder: str, there: Mapping[str, list[str] | None], facts: Mapping[str, Facts]
) -> frozenset[str]:
    names = {name: facts.get(f"{split}/{folder}/{name}.npy") for name in there[IMAGE] or ()}
    return frozenset(name for name, fact in names.items() if fact is None or not fact.defined)


Unlabelled = Mapping[str, Mapping[str, frozenset[str]]]


def _nothing_to_learn(unlabelled: Unlabelled, frames: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"no defined label of {task} in the whole of {split}"
        for split, tasks in unlabelled.items()
        for task, without in tasks.items()
        if len(without) == len(frames[split])
    ]


def _warnings(path: Path, unlabelled: Unlabelled, frames: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for split, tasks in unlabelled.items():
        for task, without in tasks.items():
            if without:
                first = min(without, key=int)
                yield (
                    f"{path}: {len(without)} of {len(frames[split])} images in {split} have no label of {task} "
                    f"(the first is {first}); they are left out of its loss and metrics."
                )


def _refuse(path: Path, wanted: str, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _TOLD} more problems" if len(problems) > _TOLD else ""
        raise UserError(
            f"{path}: expected a root of {wanted} in the npy layout, found {'; '.join(problems[:_TOLD])}{more}."
        )
