import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from decathlon.cli import app
from decathlon.data.prepare import prepare
from decathlon.data.sources import image_key
from decathlon.data.store import SPLITS, open_store
from decathlon.specs import official_domains
from experiments.cli import main
from mtan_core.decode import UnreadableError, decode
from mtan_core.errors import UserError
from tests.decathlon.images import encoded

from .official_root import annotation_file, edit, jpeg, make_archives, make_root


def content(store: Path, domain: str) -> list[Any]:
    """Everything of a domain that training sees."""
    splits = [open_store(store).split(domain, split) for split in SPLITS]
    return [
        (
            s.image_ids.tolist(),
            None if s.labels is None else s.labels.tolist(),
            [s.image(i).tobytes() for i in range(len(s))],
        )
        for s in splits
    ]


def kinds(root: Path, store: Path, **options: Any) -> set[tuple[str, str]]:
    """Kind and file name of every problem."""
    return {(problem.kind, problem.file.rsplit("/", 1)[-1]) for problem in prepare(root, store, **options).problems}


def test_a_root_becomes_a_store(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    outcome = prepare(root, tmp_path / "store")
    assert outcome.states == {"dtd": "prepared", "svhn": "prepared"}
    store = open_store(tmp_path / "store")
    train = store.split("dtd", "train")
    assert train.image_ids.tolist() == [40_200_001 + i for i in range(6)]
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert store.split("dtd", "test").image_ids.tolist() == [40_200_011, 40_200_012, 40_200_013]
    first = np.asarray(Image.open(root / "data/dtd/train/0001/000001.jpg"))
    np.testing.assert_array_equal(train.image(0), first)
    spec = store.specs["dtd"]
    assert (spec.source, spec.class_names, spec.number) == ("custom", ("kind0", "kind1"), 4)
    pixels = np.concatenate([train.image(i).reshape(-1, 3) for i in range(6)]) / 255
    np.testing.assert_allclose(spec.mean, pixels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(spec.std, pixels.std(axis=0), atol=1e-6)


def test_archives_give_the_same_store_whatever_their_order(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    prepare(root, tmp_path / "plain")
    prepare(make_archives(root, tmp_path / "archives"), tmp_path / "streamed")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(root, "somewhere/else")
    prepare(tmp_path / "all.tar", tmp_path / "one")
    for domain in ("dtd", "svhn"):
        expected = content(tmp_path / "plain", domain)
        assert content(tmp_path / "streamed", domain) == expected
        assert content(tmp_path / "one", domain) == expected


def test_absent_domains_are_no_error_unless_asked_for(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd", "svhn"))
    archives = make_archives(root, tmp_path / "archives")
    for file in (root / "data/svhn").rglob("*.jpg"):
        file.unlink()
    (tmp_path / "archives/data.tar.gz").unlink()
    with tarfile.open(archives / "images.tar", "w") as tar:
        tar.add(root / "data/dtd", "dtd")
    assert prepare(archives, tmp_path / "store").states == {"dtd": "prepared", "svhn": "absent"}
    assert open_store(tmp_path / "store").domains == ["dtd"]
    with pytest.raises(UserError, match="no domain 'svhn'"):
        prepare(archives, tmp_path / "other", "dtd,svhn")
    (archives / "images.tar").unlink()
    with pytest.raises(UserError, match="images of at least one domain"):
        prepare(archives, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_added_domain_keeps_its_number_and_gets_neither_mirror_nor_crop(tmp_path: Path) -> None:
    prepare(make_root(tmp_path / "root", ("my-leaves", "dtd")), tmp_path / "store")
    spec = open_store(tmp_path / "store").specs["my-leaves"]
    assert (spec.number, spec.mirror, spec.fit, spec.baseline_error) == (11, False, "squash", None)


def test_two_domains_of_one_number_are_refused(tmp_path: Path) -> None:
    """In one source, and where the other is in the store already."""
    both = make_root(tmp_path / "both", ("leaves", "trees"))
    with pytest.raises(UserError, match="trees: expected a domain number of its own, found 11, which is leaves's"):
        prepare(both, tmp_path / "store")
    prepare(make_root(tmp_path / "leaves", ("leaves",)), tmp_path / "store")
    with pytest.raises(UserError, match="found 11, which is leaves's"):
        prepare(make_root(tmp_path / "trees", ("trees",)), tmp_path / "store")


def test_all_problems_are_told_together_with_their_files(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd", "svhn", "vgg-flowers"))
    dtd = root / "data/dtd"
    (dtd / "train/0001/000001.jpg").write_bytes(b"no image")
    whole = (dtd / "train/0002/000002.jpg").read_bytes()
    (dtd / "train/0002/000002.jpg").write_bytes(whole[: len(whole) // 2])
    (dtd / "test/000001.jpg").unlink()
    (dtd / "val/0001/000001.jpg").write_bytes(jpeg(10, 10, 1))
    (dtd / "val/0001/stray.jpg").write_bytes(whole)
    edit(annotation_file(root, "svhn", "train"), lambda d: d["annotations"][0].update(category_id=80_000_003))
    edit(annotation_file(root, "svhn", "val"), lambda d: d["annotations"][1].update(image_id=1))
    edit(
        annotation_file(root, "svhn", "test"),
        lambda d: d["images"][0].update(file_name="data/svhn/train/0001/000003.jpg"),
    )
    annotation_file(root, "vgg-flowers", "val").write_text('{"images": [')
    expected = {
        ("unreadable image", "000001.jpg"),
        ("unreadable image", "000002.jpg"),
        ("missing image", "000001.jpg"),
        ("wrong size", "000001.jpg"),
        ("image without annotation", "stray.jpg"),
        ("category outside the list", "000001.jpg"),
        ("annotation without image", "svhn_val.json"),
        ("image without annotation", "000002.jpg"),
        ("image in two splits", "000003.jpg"),
        ("annotations", "vgg-flowers_val.json"),
    }
    assert expected <= kinds(root, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.arrow"))
    with pytest.raises(UserError, match="found none"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda d: d.pop("images"), "'images'"),
        (lambda d: d.pop("annotations"), "'annotations'"),
        (lambda d: d["images"][3].pop("width"), "id, width, height and file_name"),
        (lambda d: d["images"][3].update(id="7"), "id, width, height and file_name"),
        (lambda d: d["images"][3].update(width=2**40), "1099511627776"),
        (lambda d: d["images"][3].update(height=-(2**31)), "-2147483648"),
        (lambda d: d["images"][3].update(id=2**70), "1180591620717411303424"),
        (lambda d: d["categories"].reverse(), "category id 40000001 at place 1"),
        (lambda d: d["categories"].clear(), "at least one"),
        (lambda d: d["categories"][0].update(name="other"), "not those of"),
    ],
)
def test_annotations_of_another_form_are_named(tmp_path: Path, change: Any, detail: str) -> None:
    root = make_root(tmp_path / "root", ("dtd",))
    edit(annotation_file(root, "dtd", "val"), change)
    outcome = prepare(root, tmp_path / "store")
    assert outcome.states == {"dtd": "failed"}
    assert detail in outcome.problems[0].detail
    assert outcome.problems[0].file == "dtd_val.json"


def test_skip_leaves_out_and_counts(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd",))
    (root / "data/dtd/train/0001/000001.jpg").unlink()
    (root / "data/dtd/val/0001/000003.jpg").write_bytes(b"\xff\xd8\xff")
    edit(annotation_file(root, "dtd", "train"), lambda d: d["annotations"].append(d["annotations"][3]))
    outcome = prepare(root, tmp_path / "store", on_error="skip")
    assert outcome.states == {"dtd": "prepared"}
    store = open_store(tmp_path / "store")
    assert store.metadata("dtd", "val")["skipped"] == 3
    assert store.split("dtd", "train").image_ids.tolist() == [40_200_002, 40_200_003, 40_200_005, 40_200_006]
    assert store.split("dtd", "val").image_ids.tolist() == [40_200_007, 40_200_008, 40_200_010]
    with pytest.raises(UserError, match="--on-error skip, not fail"):
        prepare(root, tmp_path / "store")


def test_a_failed_domain_leaves_the_others_and_a_second_run_finishes(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root")
    broken = root / "data/dtd/train/0001/000001.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    assert prepare(root, tmp_path / "store").states == {"dtd": "failed", "svhn": "prepared"}
    with pytest.raises(UserError, match="half-written"):
        open_store(tmp_path / "store")
    broken.write_bytes(whole)
    assert prepare(root, tmp_path / "store").states == {"dtd": "prepared", "svhn": "kept"}
    assert open_store(tmp_path / "store").domains == ["dtd", "svhn"]


def test_resplit_is_stratified_seeded_and_recorded(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd",), {"train": 30, "val": 15, "test": 2}, classes=3)
    stores = [tmp_path / name for name in ("official", "one", "again", "two")]
    for store, seed in zip(stores, (None, 1, 1, 2), strict=True):
        prepare(root, store, resplit=seed)
    ids = []
    for store in stores:
        train, val = (open_store(store).split("dtd", split) for split in ("train", "val"))
        assert train.labels is not None
        assert val.labels is not None
        assert (np.bincount(train.labels).tolist(), np.bincount(val.labels).tolist()) == ([10] * 3, [5] * 3)
        assert len({*train.image_ids.tolist(), *val.image_ids.tolist()}) == 45
        ids.append(val.image_ids.tolist())
    assert ids[1] == ids[2]
    assert len({tuple(each) for each in ids}) == 3
    assert open_store(stores[1]).metadata("dtd", "val")["resplit"] == 1
    with pytest.raises(UserError, match="--resplit 1, not 2"):
        prepare(root, stores[1], resplit=2)


def test_another_source_for_a_finished_domain_is_refused(tmp_path: Path) -> None:
    prepare(make_root(tmp_path / "root", ("dtd",)), tmp_path / "store")
    with pytest.raises(UserError, match="made with annotations"):
        prepare(make_root(tmp_path / "other", ("dtd",), {"train": 4, "val": 4, "test": 4}), tmp_path / "store")


def test_sizes_of_the_official_splits_bring_the_published_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = official_domains()["dtd"]
    monkeypatch.setitem(official.images, "train", 6)
    monkeypatch.setitem(official.images, "val", 4)
    monkeypatch.setitem(official.images, "test", 3)
    prepare(make_root(tmp_path / "root", ("dtd",), classes=2), tmp_path / "two")
    assert open_store(tmp_path / "two").specs["dtd"].source == "custom"  # dtd has 47 classes
    sizes = {"train": 6, "val": 4, "test": 3}
    prepare(make_root(tmp_path / "whole", ("dtd",), sizes, classes=47), tmp_path / "store")
    spec = open_store(tmp_path / "store").specs["dtd"]
    assert (spec.source, spec.mean, spec.std) == ("official", official.mean, official.std)


def test_names_in_archives_cannot_lead_elsewhere(tmp_path: Path) -> None:
    for name in (
        "/data/dtd/train/1.jpg",
        "data/../dtd/train/1.jpg",
        "dtd/train/../../1.jpg",
        "dtd/train/1.txt",
        "dtd/1.jpg",
    ):
        assert image_key(name, ["dtd"]) is None
    assert image_key("./x/data/dtd/train/0001/1.jpg", ["dtd"]) == "data/dtd/train/0001/1.jpg"
    root = make_root(tmp_path / "root", ("dtd",))
    archives = make_archives(root, tmp_path / "archives")
    (archives / "data.tar.gz").unlink()
    with tarfile.open(archives / "images.tar", "w") as tar:
        link = tarfile.TarInfo("dtd/train/0001/000001.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(root / "data/dtd/train/0001/000001.jpg")
        tar.addfile(link)
        evil = tarfile.TarInfo("../../dtd/train/0001/000003.jpg")
        tar.addfile(evil)
        tar.add(root / "data/dtd/val", "dtd/val")
    before = {file for file in tmp_path.rglob("*") if "store" not in file.parts}
    problems = kinds(archives, tmp_path / "store")
    assert ("missing image", "000001.jpg") in problems
    assert ("missing image", "000003.jpg") in problems
    assert {file for file in tmp_path.rglob("*") if tmp_path / "store" not in (file, *file.parents)} == before
    root_two = make_root(tmp_path / "two", ("dtd",))
    edit(
        annotation_file(root_two, "dtd", "val"),
        lambda d: d["images"][0].update(file_name="../root/data/dtd/val/0001/000001.jpg"),
    )
    assert ("missing image", "000001.jpg") in kinds(root_two, tmp_path / "store2")


def test_a_cut_off_archive_is_named(tmp_path: Path) -> None:
    archives = make_archives(make_root(tmp_path / "root"), tmp_path / "archives")
    data = archives / "data.tar.gz"
    data.write_bytes(data.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"damaged or cut off one: .*data.tar.gz"):
        prepare(archives, tmp_path / "store")
    with pytest.raises(UserError):
        open_store(tmp_path / "store")


def test_every_colour_mode_becomes_rgb() -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((40, 30))
    reference = np.asarray(colours).astype(int)
    grey = np.asarray(colours.convert("L")).astype(int)
    for mode, kind, expected in (
        ("RGB", "JPEG", reference), ("CMYK", "JPEG", reference), ("RGBA", "PNG", reference),
        ("L", "JPEG", np.stack([grey] * 3, 2)), ("L", "PNG", np.stack([grey] * 3, 2)),
    ):  # fmt: skip
        image = decode(encoded(colours.convert(mode), kind))
        assert image.shape == (30, 40, 3)
        assert image.dtype == np.uint8
        assert np.abs(image - expected).mean() < 8, (mode, kind)
    deep = Image.fromarray((grey * 256).astype(np.uint16))
    np.testing.assert_array_equal(decode(encoded(deep, "PNG"))[..., 1], grey)
    for data in (b"", b"\xff\xd8\xff", b"GIF89a"):
        with pytest.raises(UnreadableError):
            decode(data)


def test_the_command_tells_problems_and_leaves_with_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_root(tmp_path / "root")
    (root / "data/dtd/train/0001/000001.jpg").unlink()
    assert run(monkeypatch, root, tmp_path / "store", "--json") == 2
    output = capsys.readouterr()
    assert "missing image: data/dtd/train/0001/000001.jpg" in output.err
    document = json.loads(output.out)
    assert document["domains"]["dtd"]["state"] == "failed"
    assert document["problems"] == json.loads((tmp_path / "store/problems.json").read_text())
    (tmp_path / "file").write_text("")
    for arguments in (
        [root, tmp_path / "file/store"],
        [tmp_path / "file", tmp_path / "new"],
        [root, tmp_path / "new", "--on-error", "what"],
    ):
        assert run(monkeypatch, *arguments) == 2
        output = capsys.readouterr()
        assert (output.out, output.err.count("\n")) == ("", 1)
    assert not (tmp_path / "new").exists()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> Any:
    """The exit code of `mtan decathlon prepare`."""
    monkeypatch.setattr(sys, "argv", ["mtan", "decathlon", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_the_command_takes_several_sources(tmp_path: Path) -> None:
    archives = make_archives(make_root(tmp_path / "root"), tmp_path / "archives")
    files = [str(archives / name) for name in ("data.tar.gz", "devkit.tar.gz")]
    result = CliRunner().invoke(app, ["prepare", *files, str(tmp_path / "store"), "--domains", "svhn"])
    assert result.exit_code == 0, result.output
    assert open_store(tmp_path / "store").domains == ["svhn"]


def test_killed_and_run_again_it_gives_the_same_store(tmp_path: Path) -> None:
    """SIGKILL at several moments: never a store that can be opened; then the same content as an unbroken run."""
    root = make_root(tmp_path / "root", ("dtd", "svhn", "vgg-flowers"), {"train": 400, "val": 30, "test": 30})
    prepare(root, tmp_path / "whole")
    store = tmp_path / "store"
    code = "import sys; from pathlib import Path; from decathlon.data.prepare import prepare; prepare(*map(Path, sys.argv[1:]))"
    for seen in (".tmp-dtd", "svhn"):
        running = subprocess.Popen([sys.executable, "-c", code, str(root), str(store)], stderr=subprocess.DEVNULL)
        while running.poll() is None and not (store / seen).exists():
            time.sleep(0.0005)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        if not (store / "store.json").exists():
            with pytest.raises(UserError):
                open_store(store)
    prepare(root, store)
    for domain in ("dtd", "svhn", "vgg-flowers"):
        assert content(store, domain) == content(tmp_path / "whole", domain)
    assert not [file.name for file in store.iterdir() if file.name.startswith(".")]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd", "svhn"), {"train": 2000, "val": 30, "test": 30})
    running = subprocess.Popen(
        [sys.executable, "-c", "from experiments.cli import main; main()", "decathlon", "prepare", root, tmp_path / "store"],
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )  # fmt: skip
    while running.poll() is None and not (tmp_path / "store" / ".tmp-dtd").exists():
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    told = running.communicate()[1]
    assert running.returncode == 130
    assert "nothing that is half done was left. Run it again" in told and "Traceback" not in told
    assert not [file for file in (tmp_path / "store").glob("**/*") if file.name.startswith(".")]


@pytest.mark.shared
def test_the_small_real_decathlon(shared: Path, tmp_path: Path) -> None:
    prepare(shared / "decathlon-mini-dev", tmp_path / "store", "daimlerpedcls,svhn,vgg-flowers")
    store = open_store(tmp_path / "store")
    assert store.domains == ["daimlerpedcls", "svhn", "vgg-flowers"]
    people = store.split("daimlerpedcls", "val")
    assert (len(people), people.image(0).shape) == (80, (144, 72, 3))
    assert len(store.split("svhn", "train")) == 287
