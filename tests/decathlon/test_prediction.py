"""`predict`: any image file or folder, as in evaluation, in batches; what cannot be read is told in a sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import decathlon
from decathlon.data.store import open_store
from decathlon.prediction import BATCH, predict_paths, preprocess, read_image
from mtan_core.errors import UserError
from mtan_core.images import find_images
from tests.decathlon.conftest import DOMAINS, Tiny, write_picture
from tests.test_command import Mtan, refused


def predict(mtan: Mtan, run: Path, *words: object) -> Any:
    outcome = mtan("decathlon", "predict", run, *words, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("domain", DOMAINS)
def test_files_are_seen_exactly_as_stored_images_are(challenge: Tiny, trained: Path, domain: str) -> None:
    run = decathlon.load_run(trained)
    stored = run.images(open_store(challenge.store).split(domain, "test"))
    files = sorted((challenge.root / "data" / domain / "test").iterdir())
    seen = [
        preprocess(read_image(file), run.spec(domain), run.fit(domain), run.config.image_size, run.device)
        for file in files
    ]
    torch.testing.assert_close(torch.cat(seen), stored.evaluation(np.arange(len(files))), rtol=0, atol=1e-5)


def test_batches_answer_as_single_images_do(challenge: Tiny, trained: Path) -> None:
    run = decathlon.load_run(trained)
    folder = challenge.root / "data" / "svhn"
    together = predict_paths(run, [folder], "svhn", top=2)
    assert len(together) > BATCH
    assert [one.path for one in together] == sorted(folder.rglob("*.jpg"))
    for one in together[:: len(together) // 5]:
        (alone,) = run.predict([one.path], "svhn", top=2)
        assert alone.labels == one.labels
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_the_json_names_images_and_classes(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    folder = challenge.root / "data" / "dtd" / "test"
    document = predict(mtan, trained, folder / "000002.jpg", folder, "--domain", "dtd", "--top", 2)
    assert (document["domain"], document["checkpoint"]) == ("dtd", "last")
    rows = document["predictions"]
    assert [row["image"] for row in rows] == [str(folder / "000002.jpg"), *(str(f) for f in sorted(folder.iterdir()))]
    names = decathlon.load_run(trained).spec("dtd").class_names
    for row in rows:
        first, second = row["classes"]
        assert first["name"] in names and 1 >= first["probability"] >= second["probability"] >= 0
    everything = predict(mtan, trained, folder / "000002.jpg", "--domain", "dtd", "--top", 99)["predictions"][0][
        "classes"
    ]
    assert sorted(c["name"] for c in everything) == sorted(names)
    assert sum(c["probability"] for c in everything) == pytest.approx(1)


def test_people_get_a_line_per_image(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    file = challenge.root / "data" / "dtd" / "test" / "000001.jpg"
    outcome = mtan("decathlon", "predict", trained, file, "--domain", "dtd", "--top", 1)
    assert (outcome.code, outcome.err) == (0, "")  # and no progress bar for what takes no time
    assert outcome.out.startswith(f"{file}: kind") and outcome.out.endswith("%\n") and outcome.out.count("\n") == 1


def test_a_folder_gives_its_images_alone(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "below/c.webp", ".hidden/d.jpg", ".e.jpg"):
        write_picture(tmp_path / name, 20, 20, (9, 9, 9), seed=0)
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images([tmp_path]) == [tmp_path / "a.PNG", tmp_path / "b.jpg", tmp_path / "below" / "c.webp"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_images_of_all_colour_modes_are_read(trained: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tiff"
    image = (
        Image.fromarray(np.arange(96 * 80, dtype=np.uint16).reshape(96, 80))
        if mode == "I;16"
        else Image.new(mode, (80, 96))
    )
    image.save(path)
    (answer,) = decathlon.load_run(trained).predict([path], "svhn")
    assert sum(answer.probabilities) == pytest.approx(1)


# Bad input


def test_what_cannot_be_read_is_one_sentence(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    def told(path: Path, *words: str, domain: str = "dtd") -> None:
        refused(mtan("decathlon", "predict", trained, path, "--domain", domain, "--json"), *words)

    whole = tmp_path / "whole.jpg"
    write_picture(whole, 80, 80, (9, 9, 9), seed=0)
    (tmp_path / "notes.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("notes.jpg", "cut.jpg", "empty.png"):
        told(tmp_path / name, "Expected an image file", name)
    told(tmp_path / "absent.jpg", "found nothing at", "absent.jpg")
    (tmp_path / "folder").mkdir()
    told(tmp_path / "folder", "Expected a folder with image files, found none")
    told(tmp_path, "Expected an image file", "cut.jpg")  # one damaged file among whole ones
    told(whole, "no domain 'dtdd'", "did you mean 'dtd'?", domain="dtdd")


def test_tiny_and_huge_images_are_refused_without_decoding_them(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "point.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "field.png")
    Image.new("1", (9_500, 9_500)).save(tmp_path / "acre.png")
    for name, words in (("point", "found 1x1"), ("field", "larger"), ("acre", "found 9500x9500")):
        refused(
            mtan("decathlon", "predict", trained, tmp_path / f"{name}.png", "--domain", "svhn"), words, f"{name}.png"
        )
    with pytest.raises(UserError, match=r"at most 89,000,000 pixels, found .*field\.jpg"):
        header = tmp_path / "field.jpg"
        header.write_bytes(_jpeg_that_claims(20_000))
        read_image(header)


def _jpeg_that_claims(side: int) -> bytes:
    """A JPEG of a few bytes whose header claims side x side pixels."""
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    return bytes(data)


def test_a_run_that_is_none_is_one_sentence(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    file = challenge.root / "data" / "dtd" / "test" / "000001.jpg"
    refused(mtan("decathlon", "predict", tmp_path, file, "--domain", "dtd"), "Expected a run's folder")
