"""What a generated domain is: its classes, its split sizes, and the function that paints one image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (height, width, 3)
Rng = np.random.Generator
SIDE = 72  # shorter side of every image, as in the original
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image to be painted. `rng` is its own, so that an image does not depend on what was painted before it."""

    name: str  # of its class
    split: str
    index: int  # place within class and split
    seed: int  # of the whole miniature
    rng: Rng


@dataclass(frozen=True)
class Kind:
    """One generated domain: class names in the order of their labels (sorted as text), painter, images per class."""

    name: str
    classes: tuple[str, ...]
    paint: Callable[[Sample], Pixels]
    train: int = 50
    val: int = 15
    test: int = 20

    def __post_init__(self) -> None:
        if list(self.classes) != sorted(self.classes):
            raise ValueError(f"{self.name}: classes must be sorted as text, found {self.classes}.")

    def images(self, split: str) -> int:
        """Images per class."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]
