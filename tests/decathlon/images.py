"""Random stored splits without files, and images as the bytes of files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from decathlon.data.store import FORMAT, StoredSplit, open_store
from decathlon.data.writer import SplitWriter
from decathlon.specs import official_domains
from mtan_core.files import write_json

Images = list[np.ndarray[Any, Any]]


def random_images(sizes: list[tuple[int, int]], seed: int = 0) -> Images:
    """Smooth images of these heights and widths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


def store_split(
    folder: Path, images: Images, domain: str = "dtd", split: str = "train", classes: int = 7
) -> StoredSplit:
    """A store of one domain; image i has label i modulo `classes`. Splits of one folder share its store."""
    spec = official_domains()[domain].spec([f"kind{c}" for c in range(classes)])
    metadata = {"format": FORMAT, "spec": spec.to_dict(), "split": split, "skipped": 0}
    (folder / domain).mkdir(parents=True, exist_ok=True)
    writer = SplitWriter(folder / domain / f"{split}.arrow", metadata)
    for place, image in enumerate(images):
        labels = None if split == "test" else np.array([place % classes])
        writer.append(np.array([place]), labels, [image.shape[:2]], image.ravel())
    writer.close(metadata)
    splits = sorted(file.stem for file in (folder / domain).glob("*.arrow"))
    write_json(folder / "store.json", {"format": FORMAT, "domains": {domain: splits}})
    return open_store(folder).split(domain, split)


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a file of this kind ("JPEG", "PNG", ...)."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
