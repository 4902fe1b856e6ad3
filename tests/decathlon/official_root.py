"""A tiny challenge in the official layout, for tests of what reads it: random pictures, exact ids."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = {"train": 6, "val": 4, "test": 3}
NUMBERS = {"dtd": 4, "svhn": 8, "vgg-flowers": 10}


def jpeg(height: int, width: int, seed: int, mode: str = "RGB") -> bytes:
    """A smooth random picture as a JPEG file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_root(
    root: Path, domains: tuple[str, ...] = ("dtd", "svhn"), sizes: dict[str, int] = SIZES, classes: int = 2
) -> Path:
    """Write `data` and `annotations` of these domains; labels go 0, 1, 0, 1, ...; some images are wider than high."""
    (root / "annotations").mkdir(parents=True)
    for domain in domains:
        base, count = NUMBERS.get(domain, 11) * 10**7, 0
        for split, size in sizes.items():
            images, annotations = [], []
            for i in range(size):
                count += 1
                place = (
                    f"{split}/{i + 1:06d}.jpg" if split == "test" else f"{split}/{i % classes + 1:04d}/{i + 1:06d}.jpg"
                )
                file, width = f"data/{domain}/{place}", 24 + 8 * (count % 2)
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(jpeg(24, width, base + count))
                image_id = base + 200_000 + count
                images.append({"id": image_id, "width": width, "height": 24, "file_name": file})
                annotations.append({"id": image_id, "image_id": image_id, "category_id": base + i % classes + 1})
            categories = [{"id": base + c + 1, "name": f"kind{c}", "supercategory": domain} for c in range(classes)]
            document: dict[str, Any] = {"info": {"description": "Test"}, "images": images, "categories": categories}
            if split != "test":
                document["annotations"] = annotations
            annotation_file(root, domain, split).write_text(json.dumps(document))
    return root


def annotation_file(root: Path, domain: str, split: str) -> Path:
    return root / "annotations" / f"{domain}_{split}{'_stripped' if split == 'test' else ''}.json"


def edit(file: Path, change: Any) -> None:
    """Change a JSON file by a function that gets the document."""
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def make_archives(root: Path, folder: Path) -> Path:
    """The same as the official archives are: annotations in one, and in the other a tar for every domain."""
    folder.mkdir()
    with tarfile.open(folder / "devkit.tar.gz", "w:gz") as tar:
        tar.add(root / "annotations", "decathlon-1.0/annotations")
    with tarfile.open(folder / "data.tar.gz", "w:gz") as outer:
        for domain in sorted((root / "data").iterdir(), reverse=True):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for file in sorted(domain.rglob("*.jpg"), reverse=True):
                    tar.add(file, str(file.relative_to(root / "data")))
            info = tarfile.TarInfo(f"{domain.name}.tar")
            info.size = inner.tell()
            inner.seek(0)
            outer.addfile(info, inner)
    return folder
