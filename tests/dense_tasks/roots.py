"""Small roots in the npy layout."""

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 32, 64
FOLDERS = ("image", "label", "depth", "normal")


def arrays(rng: np.random.Generator, height: int = HEIGHT, width: int = WIDTH) -> dict[str, np.ndarray]:
    """One frame of noise: every kind of label, some of them undefined."""
    normal = rng.normal(size=(height, width, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    normal[rng.random((height, width)) < 0.1] = 0
    depth = rng.uniform(0.5, 9, (height, width, 1)) * (rng.random((height, width, 1)) < 0.9)
    return {
        "image": rng.random((height, width, 3)),
        "label": rng.integers(-1, 13, (height, width)),
        "depth": depth,
        "normal": normal,
    }


def write_frame(root: Path, split: str, number: int, frame: dict[str, np.ndarray]) -> None:
    for folder, values in frame.items():
        (root / split / folder).mkdir(parents=True, exist_ok=True)
        np.save(root / split / folder / f"{number}.npy", values)


def write_root(root: Path, train: int = 3, val: int = 2, seed: int = 0) -> Path:
    """A root without any mistake."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            write_frame(root, split, number, arrays(rng))
    return root
