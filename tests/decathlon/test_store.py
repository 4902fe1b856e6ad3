import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs as pafs

from decathlon.data.store import FORMAT, METADATA_KEY, Store, open_store
from decathlon.data.writer import SplitWriter
from decathlon.specs import official_domains
from mtan_core.errors import UserError


def write_split(
    folder: Path, domain: str, split: str, count: int = 600, **changes: Any
) -> dict[int, tuple[int, np.ndarray[Any, Any]]]:
    """A split of random images (more than one record batch), written in a random order of their ids."""
    generator = np.random.default_rng(len(domain))
    spec = official_domains()[domain].spec(["a", "b"])
    metadata = {"format": FORMAT, "spec": spec.to_dict(), "split": split, "skipped": 0, **changes}
    (folder / domain).mkdir(parents=True, exist_ok=True)
    writer = SplitWriter(folder / domain / f"{split}.arrow", metadata)
    written = {}
    for place in generator.permutation(count).tolist():
        image = generator.integers(
            0, 256, (int(generator.integers(1, 9)), int(generator.integers(1, 9)), 3), dtype=np.uint8
        )
        written[place] = place % 2, image
        labels = None if split == "test" else np.array([place % 2])
        writer.append(np.array([place]), labels, [image.shape[:2]], image.ravel())
    writer.close({**metadata, "skipped": 123456})
    return written


def write_marker(folder: Path, version: int = FORMAT) -> None:
    domains = {
        child.name: sorted(file.stem for file in child.iterdir()) for child in folder.iterdir() if child.is_dir()
    }
    (folder / "store.json").write_text(json.dumps({"format": version, "domains": domains}))


def test_a_split_gives_back_what_was_written_in_the_order_of_ids(tmp_path: Path) -> None:
    written = write_split(tmp_path, "dtd", "train")
    write_marker(tmp_path)
    images = open_store(tmp_path).split("dtd", "train")
    assert images.labels is not None
    assert images.image_ids.tolist() == sorted(written)
    for i, image_id in enumerate(images.image_ids.tolist()):
        label, pixels = written[image_id]
        np.testing.assert_array_equal(images.image(i), pixels)
        assert images.labels[i] == label
        assert (images.heights[i], images.widths[i]) == pixels.shape[:2]
    assert images.metadata["skipped"] == 123456  # what `close` was given, not what the file began with


def test_pixels_and_offsets_give_an_image_without_arrow(tmp_path: Path) -> None:
    written = write_split(tmp_path, "dtd", "train")
    write_marker(tmp_path)
    images = open_store(tmp_path).split("dtd", "train")
    pixels = written[7][1]
    start = images.offsets[7]
    np.testing.assert_array_equal(images.pixels[start : start + pixels.size], pixels.ravel())
    assert images.pixels.nbytes == (tmp_path / "dtd/train.arrow").stat().st_size
    assert np.shares_memory(images.image(7), images.pixels)
    assert not images.image(7).flags.writeable


def test_test_has_no_labels_and_specs_come_by_number(tmp_path: Path) -> None:
    for domain in ("svhn", "aircraft"):
        write_split(tmp_path, domain, "test", 3)
    write_marker(tmp_path)
    store = open_store(tmp_path)
    assert store.split("svhn", "test").labels is None
    assert store.domains == ["aircraft", "svhn"]
    assert store.specs["svhn"] == official_domains()["svhn"].spec(["a", "b"])
    assert store.select("svhn").domains == ["svhn"]


def test_the_file_is_plain_arrow_with_the_agreed_columns(tmp_path: Path) -> None:
    write_split(tmp_path, "dtd", "val", 5)
    with pa.ipc.open_file(tmp_path / "dtd/val.arrow") as reader:
        assert reader.schema.names == ["image_id", "label", "height", "width", "pixels"]
        assert json.loads(reader.schema.metadata[METADATA_KEY])["skipped"] == 123456
    with pa.memory_map(
        str(tmp_path / "dtd/val.arrow")
    ) as file:  # the schema at the file's head, which streams begin with
        file.seek(8)
        assert json.loads(pa.ipc.read_schema(file).metadata[METADATA_KEY])["skipped"] == 123456


def test_a_store_is_read_by_uri_and_from_another_file_system(tmp_path: Path) -> None:
    written = write_split(tmp_path, "dtd", "train", 20)
    write_marker(tmp_path)
    remote = Store("remote", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "", {"dtd": ["train"]})
    for store in (open_store(tmp_path.as_uri()), remote):
        np.testing.assert_array_equal(store.split("dtd", "train").image(3), written[3][1])


def test_what_is_no_whole_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        open_store(tmp_path / "nothing")
    write_split(tmp_path, "dtd", "train", 5)
    with pytest.raises(UserError, match="half-written"):
        open_store(tmp_path)
    write_marker(tmp_path, FORMAT + 1)
    with pytest.raises(UserError, match=f"format {FORMAT}, found format {FORMAT + 1}"):
        open_store(tmp_path)
    write_marker(tmp_path)
    with pytest.raises(UserError, match=r"no domain 'dtt'.*did you mean 'dtd'"):
        open_store(tmp_path).split("dtt", "train")
    with pytest.raises(UserError, match="no split 'val'"):
        open_store(tmp_path).split("dtd", "val")


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    write_split(tmp_path, "dtd", "train", 50)
    write_marker(tmp_path)
    file = tmp_path / "dtd/train.arrow"
    whole = file.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"damaged.*dtd/train.arrow"):
            open_store(tmp_path).split("dtd", "train")
    file.unlink()
    with pytest.raises(UserError, match=r"dtd/train.arrow"):
        open_store(tmp_path).split("dtd", "train")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int8())])):
        pass
    with pytest.raises(UserError, match="something else"):
        open_store(tmp_path).split("dtd", "train")
    write_split(tmp_path, "dtd", "train", 5)
    file.write_bytes(file.read_bytes().replace(b'"format": 1', b'"format": 7'))
    with pytest.raises(UserError, match="found format 7"):
        open_store(tmp_path).split("dtd", "train")
