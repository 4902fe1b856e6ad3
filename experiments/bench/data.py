"""`bench data`: our batches against `ImageFolder` + PIL transforms + `DataLoader`, on the same images in one run.

Our side is a process of its own, with the memory settings of a training run; the other has processes of its own already.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, RandomSampler, Sampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from decathlon.batches import DomainImages
from decathlon.data.store import Store, open_store
from decathlon.specs import DomainSpec
from decathlon.views import Augmentation
from experiments.bench.rounds import Side, in_process, lasting, take_turns
from mtan_core.errors import UserError
from mtan_core.memory import keep_memory

SIZE = 72
WORKERS = 2


def pil_transform(spec: DomainSpec) -> transforms.Compose:
    """The usual training transform of a domain: fit, random crop, mirror where allowed, to a tensor, normalise."""
    steps: list[Any] = [transforms.Resize((SIZE, SIZE))] if spec.fit == "squash" else [
        transforms.Resize(SIZE), transforms.RandomCrop(SIZE)
    ]  # fmt: skip
    if spec.mirror:
        steps.append(transforms.RandomHorizontalFlip())
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])


class DomainBatches(Sampler[list[int]]):
    """Batches over concatenated data sets, each of one of them: one set after the other, shuffled within."""

    def __init__(self, sizes: Sequence[int], batch: int) -> None:
        self.sizes, self.batch = sizes, batch

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for size in self.sizes:
            for places in BatchSampler(RandomSampler(range(size)), self.batch, drop_last=False):
                yield [start + place for place in places]
            start += size


def folder_epoch(specs: Mapping[str, DomainSpec], source: Path, batch: int) -> Callable[[], int]:
    """One pass over the training folders of an official root with torchvision's usual means; returns the images seen.

    The workers stay between passes, so that their start is not counted. Raises UserError for a domain without folders.
    """
    sets = []
    for name, spec in specs.items():
        folder = source / "data" / name / "train"
        if not folder.is_dir():
            raise UserError(f"--source: expected the training images of {name} in {folder}, found no such folder.")
        sets.append(ImageFolder(str(folder), pil_transform(spec)))
    sampler = DomainBatches([len(images) for images in sets], batch)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        ConcatDataset(sets), batch_sampler=sampler, num_workers=WORKERS, persistent_workers=True
    )
    return lambda: sum(len(labels) for _, labels in loader)


def store_epoch(store: Store, batch: int, seed: int = 0) -> Callable[[], int]:
    """One pass over a store's training splits with our batches on the CPU, same sizes, crops and mirrors."""
    rng = np.random.default_rng(seed)
    device = torch.device("cpu")
    sets = [
        DomainImages(store.split(name, "train"), spec.fit, SIZE, device, spec) for name, spec in store.specs.items()
    ]

    def epoch() -> int:
        seen = 0
        for images in sets:
            order = rng.permutation(len(images.split))
            for start in range(0, len(order), batch):
                places = order[start : start + batch]
                assert images.split.labels is not None
                labels = torch.from_numpy(images.split.labels[places])
                seen += min(len(labels), len(images.training(images.draw(places, Augmentation(), rng))))
        return seen

    return epoch


@contextmanager
def generated(domains: Sequence[str] | None = None) -> Iterator[tuple[Path, Path]]:
    """A miniature (or some of its domains) in the official layout and its store, in a temporary folder."""
    from decathlon.data.prepare import prepare
    from decathlon.miniature import write_miniature

    with TemporaryDirectory() as folder:
        root, store = Path(folder) / "miniature", Path(folder) / "store"
        write_miniature(root, domains=domains)
        prepare(root, store)
        yield root, store


def store_side(_: str, task: tuple[str, int]) -> Side:
    """Our side, in a process of its own."""
    keep_memory()
    place, batch = task
    return lasting(store_epoch(open_store(place), batch))


def measure_data(place: str, source: Path, batch: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Images per second of both sides; the document that `bench data --json` prints. The store lies at `place`."""
    for name, value, least in (("--batch", batch, 1), ("--rounds", rounds, 1), ("--seconds", seconds, 0)):
        if value < least:
            raise UserError(f"{name}: expected at least {least}, found {value}.")
    store = open_store(place)
    specs = store.specs
    folders = folder_epoch(specs, source, batch)
    images = sum(len(store.split(name, "train")) for name in specs)
    if folders() != images:
        raise UserError(f"Expected the same images twice, found {images} in the store and others in {source}.")
    with in_process(store_side, "store", (place, batch)) as ask:
        rates = take_turns({"folders": lasting(folders), "store": ask}, rounds, seconds, "bench data")
    return {
        "domains": list(specs), "images": images, "batch": batch, "rounds": rounds, "workers": WORKERS,
        "threads": torch.get_num_threads(), "sides": {name: side.to_dict() for name, side in rates.items()},
        "ratio": rates["store"].median / rates["folders"].median,
    }  # fmt: skip


def measure_data_of(store: str, source: Path | None, batch: int, rounds: int, seconds: float) -> dict[str, Any]:
    """`measure_data` of a store and the official root it was made of; without a store, of a generated miniature."""
    if store:
        if source is None:
            raise UserError("--source: expected the unpacked official root that the store was made of, found nothing.")
        return measure_data(store, source, batch, rounds, seconds)
    if source is not None:
        raise UserError("STORE: expected the store made of --source, found nothing.")
    with generated() as (root, made):
        return measure_data(str(made), root, batch, rounds, seconds)


def print_data(document: Mapping[str, Any]) -> None:
    """The document of `measure_data` for people."""
    names = {"folders": f"ImageFolder, PIL, DataLoader ({WORKERS} workers)", "store": "our batches"}
    print(
        f"{document['images']} training images of {len(document['domains'])} domains, batches of {document['batch']}; "
        f"median (lowest to highest) of {document['rounds']} rounds"
    )
    for name, row in document["sides"].items():
        spread = f"({row['lowest']:,.0f} to {row['highest']:,.0f})"
        print(f"{names[name]:40} {row['images_per_second']:9,.0f} images/s  {spread}")
    print(f"ratio {document['ratio']:.1f}")
