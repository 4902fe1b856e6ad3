"""`masks`: what masks select, from known masks and from trained runs; gradients whose truth is known; figures."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import decathlon
from decathlon.data.prepare import prepare
from decathlon.data.store import open_store
from decathlon.gradients import GradientCosines, gradient_cosines
from decathlon.masks import MaskUse, cosine_matrix, feature_maps, mask_use
from mtan_core.errors import UserError
from mtan_core.segments import Segments
from tests.decathlon.conftest import DOMAINS, Tiny, train_tiny, write_domain, write_picture
from tests.decathlon.test_figures import pixels
from tests.test_command import Mtan, refused

NAMES = ["left", "right", "both"]
MEANS = np.array([[0.9, 0.1, 0.5, 0.6], [0.1, 0.9, 0.5, 0.6], [0.9, 0.1, 0.5, 0.7]])  # (domains, channels)


def known() -> MaskUse:
    return MaskUse("val", dict.fromkeys(NAMES, 3), [MEANS, 1 - MEANS], [np.zeros(3), np.ones(3)])


def test_use_and_overlap_of_known_masks() -> None:
    use = known()
    np.testing.assert_allclose(use.use[:, 0], MEANS.mean(1))
    assert use.correlations[0][0, 2] > 0.9 and use.correlations[0][0, 1] < -0.8
    np.testing.assert_allclose(use.correlations[0], np.corrcoef(MEANS), atol=1e-12)
    np.testing.assert_allclose(np.diag(use.cosines[1]), 1)
    assert (use.cosines[0] > 0.3).all()  # of positive numbers, whatever is chosen


def test_channels_are_ordered_by_how_they_are_shared() -> None:
    use = known()
    (most,) = use.most_shared(1)
    assert (most.stage, most.channel, most.lowest, most.highest, most.highest_domain) == (0, 3, 0.6, 0.7, "both")
    assert {(channel.stage, channel.channel) for channel in use.least_shared(4)} == {
        (s, c) for s in (0, 1) for c in (0, 1)
    }
    assert len(use.channels()) == 8


def test_a_constant_row_is_like_nothing() -> None:
    np.testing.assert_array_equal(cosine_matrix(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0, 1]])


def test_means_are_those_of_the_network_s_masks(challenge: Tiny, trained: Path) -> None:
    run, store = decathlon.load_run(trained), open_store(challenge.store)
    use = mask_use(run, store)
    assert use.domains == list(DOMAINS) and set(use.images.values()) == {12}
    for place, name in enumerate(use.domains):
        images = run.images(store.split(name, "val")).evaluation(np.arange(12))
        with torch.inference_mode():
            masks = run.network.masks(images, name)
        assert len(masks) == len(use.means) == 4
        for stage, mask in enumerate(masks):
            np.testing.assert_allclose(use.means[stage][place], mask.double().mean((0, 2, 3)), atol=1e-5)
            assert use.spreads[stage][place] == pytest.approx(float(mask.double().std(correction=0)), abs=1e-5)
            assert use.use[place, stage] == pytest.approx(float(mask.mean()), abs=1e-5)
    assert set(mask_use(run, store, domains="svhn,dtd", limit=5).images.values()) == {5}


# Gradients


def test_gradients_are_those_of_training_and_change_nothing(challenge: Tiny, trained: Path) -> None:
    run, store = decathlon.load_run(trained), open_store(challenge.store)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    found = gradient_cosines(run, store, batches=3)
    assert found is not None and found.domains == list(DOMAINS)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert not run.network.training and all(p.grad is None for p in run.network.parameters())
    np.testing.assert_allclose(found.cosines, found.cosines.T, atol=1e-6)
    assert (np.abs(found.cosines) <= 1).all() and (found.errors > 0).all()
    pool = [p for n, p in run.network.named_parameters() if n.startswith("pool.") and ".affine." not in n]
    assert found.parameters == sum(p.numel() for p in pool)
    again = gradient_cosines(run, store, batches=3)
    assert again is not None and np.array_equal(again.cosines, found.cosines)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with one domain under two names, and a run whose batches hold all its images, without augmentation."""
    folder = tmp_path_factory.mktemp("twins")
    for name, number in (("dtd", 4), ("svhn", 8)):
        write_domain(folder / "root", name, number)
    for file in (folder / "root" / "data" / "dtd").rglob("*.jpg"):
        shutil.copy(file, str(file).replace("/dtd/", "/svhn/"))
    assert not prepare(folder / "root", folder / "store").problems
    plain = ("mirror=false", "zoom=1", "zoom_out=1", "shift=0", "contrast=0", "brightness=0", 'centre=["dtd", "svhn"]')
    train_tiny(folder / "store", folder / "run", "batch_size=27", "mixup=0", *(f"augment.{change}" for change in plain))
    return folder / "store", folder / "run"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_same_task_helps_and_the_opposite_one_is_in_conflict(twins: tuple[Path, Path], sign: int) -> None:
    """With the same masks and head. A head that answers little, and the opposite, has the opposite gradient."""
    store, run = open_store(twins[0]), decathlon.load_run(twins[1])
    state = run.network.state_dict()
    state["heads.dtd.weight"].mul_(1e-3)
    state["heads.dtd.bias"].zero_()
    for name in state:
        if ".svhn." in name:
            state[name].copy_(state[name.replace(".svhn.", ".dtd.")])
    state["heads.svhn.weight"].mul_(sign)
    found = gradient_cosines(run, store, batches=2)
    assert found is not None
    assert found.cosines[0, 1] == pytest.approx(sign, abs=0.02)
    assert found.whole[0, 1] == pytest.approx(sign, abs=0.02)
    assert np.diag(found.cosines) == pytest.approx(1, abs=0.02)  # every batch holds the same images


def test_only_pairs_beyond_the_noise_are_named() -> None:
    def pairs(cosine: float, error: float, batches: int, sign: int) -> list[Any]:
        matrix = np.array([[1, cosine], [cosine, 1]])
        return GradientCosines(["a", "b"], matrix, np.full((2, 2), error), matrix, batches, 9).pairs(sign)

    assert pairs(0.3, 0.05, 16, 1) == [("a", "b", 0.3, 0.05)]
    assert pairs(0.3, 0.05, 16, -1) == [] and pairs(-0.3, 0.05, 16, -1) == [("a", "b", -0.3, 0.05)]
    assert pairs(0.3, 0.2, 16, 1) == []
    assert pairs(0.3, 0.05, 2, 1) == []  # two batches say little about their spread
    assert pairs(0.3, float("nan"), 1, 1) == []


# Maps of single images


def test_maps_are_features_mask_and_what_passes(challenge: Tiny, trained: Path) -> None:
    run = decathlon.load_run(trained)
    file = challenge.root / "data" / "dtd" / "test" / "000001.jpg"
    rows = feature_maps(run, [file], "dtd", channels=2)
    images = run.images(open_store(challenge.store).split("dtd", "test")).evaluation(np.array([0]))
    with torch.inference_mode():
        masks, taps = run.network.masks(images, "dtd"), run.network.pool(images, Segments(("dtd",), (1,)))
    assert [row.stage for row in rows] == ["stage 0", "stage 1", "stage 2", "stage 3"]
    for row, mask, tap in zip(rows, masks, taps, strict=True):
        assert row.image.shape == (24, 24, 3)
        (label, features, mean, passed), *single = row.maps
        assert label == "all channels" and len(single) == 2
        np.testing.assert_allclose(mean, mask[0].mean(0), atol=1e-4)
        np.testing.assert_allclose(features, tap.features[0].abs().mean(0), atol=1e-3)
        np.testing.assert_allclose(passed, (mask * tap.features)[0].abs().mean(0), atol=1e-3)
        for name, u, a, product in single:
            channel = int(name.removeprefix("channel "))
            np.testing.assert_allclose(a, mask[0, channel], atol=1e-4)
            np.testing.assert_allclose(product, u * a, atol=1e-6)


# The command


def masks(mtan: Mtan, *words: object) -> Any:
    outcome = mtan("decathlon", "masks", *words, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_the_command_tells_and_draws_all(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    figure = tmp_path / "masks.png"
    file = challenge.root / "data" / "dtd" / "test" / "000001.jpg"
    words = ("--data", challenge.store, "--batches", 2, "--figure", figure, "--image", file, "--domain", "dtd")
    document = masks(mtan, trained, *words)
    assert document["domains"] == list(DOMAINS) and len(document["stages"]) == 4
    assert set(document["stages"][0]["use"]) == set(DOMAINS) and len(document["stages"][0]["channel_use"]["dtd"]) == 16
    assert np.array(document["overlap"]["correlation"]).shape == (3, 3)
    assert len(document["most_shared"]) == len(document["least_shared"]) == 5
    assert np.array(document["gradients"]["cosine"]).shape == (3, 3)
    assert document["figures"] == [str(figure), str(tmp_path / "masks-images.png")]
    for path in document["figures"]:
        pixels(Path(path))


def test_people_get_tables(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    outcome = mtan("decathlon", "masks", trained, "--data", challenge.store, "--batches", 2, "--limit", 4)
    assert outcome.code == 0
    for words in ("Mean mask on val", "Overlap", "Least shared channels", "Which help each other", "in conflict"):
        assert words in outcome.out


def test_single_images_need_no_store(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", 90, 200, (9, 200, 9), seed=1)
    words = ("--image", tmp_path / "a.jpg", "--domain", "daimlerpedcls", "--figure", tmp_path / "a.png")
    assert masks(mtan, trained, *words)["figures"] == [str(tmp_path / "a.png")]
    pixels(tmp_path / "a.png")


def test_mistakes_are_one_sentence_and_draw_nothing(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    def told(found: str, *words: object, run: Path = trained) -> None:
        refused(mtan("decathlon", "masks", run, *words), found)
        assert not (tmp_path / "x.png").exists()

    figure = ("--figure", tmp_path / "x.png")
    (tmp_path / "no.jpg").write_text("no image")
    told("expected --data STORE, or --image FILE")
    told("only `submit` runs a network on test images", "--data", challenge.store, "--split", "test", *figure)
    told("did you mean 'svhn'?", "--data", challenge.store, "--domains", "svnh", *figure)
    told("expected --domain NAME and --figure", "--image", tmp_path / "no.jpg", *figure)
    told("expected --image FILE together with --domain", "--data", challenge.store, "--domain", "dtd")
    told("Expected an image file", "--image", tmp_path / "no.jpg", "--domain", "dtd", *figure)
    told("no domain 'dtdd'", "--image", tmp_path / "no.jpg", "--domain", "dtdd", *figure)
    told("ends in .png", "--data", challenge.store, "--figure", tmp_path / "x.jpg")
    told("Expected a run's folder", "--data", challenge.store, run=tmp_path)


def test_a_run_without_masks_is_refused(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace('mask_activation = "sigmoid"', 'mask_activation = "ones"'))
    refused(mtan("decathlon", "masks", run, "--data", challenge.store), "masks are switched off")


def test_too_many_images_for_a_figure_are_refused(challenge: Tiny, trained: Path) -> None:
    with pytest.raises(UserError, match="at most 6 images for one figure, found 10"):
        feature_maps(decathlon.load_run(trained), [challenge.root / "data" / "dtd" / "test"], "dtd")
