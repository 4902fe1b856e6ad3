"""The benchmarks' baselines are what they claim to be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from decathlon.specs import official_domains
from experiments.bench.plain import PlainMtan, plain_loop


@pytest.fixture(scope="module")
def authors_classes() -> list[int]:
    return [domain.classes for domain in sorted(official_domains().values(), key=lambda domain: domain.authors_place)]


@pytest.mark.shared
@pytest.mark.parametrize("size", [64, 72])
def test_plain_network_is_the_authors(shared: Path, size: int) -> None:
    golden = np.load(shared / "golden" / "wrn_mtan_10_1.npz")
    network = PlainMtan(golden["classes"].tolist(), int(golden["depth"]), int(golden["width"])).eval()
    network.load_state_dict(torch.load(shared / "golden" / "wrn_mtan_10_1.pth", weights_only=True))
    images = torch.from_numpy(golden[f"x{size}"])
    for k in range(10):
        with torch.no_grad():
            probabilities = network(images, k).softmax(dim=1).numpy()
        np.testing.assert_allclose(probabilities, golden[f"p{size}_{k}"], rtol=0, atol=1e-5)


def test_plain_network_has_the_published_size(authors_classes: list[int]) -> None:
    network = PlainMtan(authors_classes)
    pool = [network.conv1, network.layer1, network.layer2, network.layer3, network.bn1]
    assert sum(p.numel() for p in network.parameters()) == 10_237_656
    assert sum(p.numel() for part in pool for p in part.parameters()) == 5_850_528


def test_plain_loop_learns_every_domain_and_counts_its_images() -> None:
    torch.manual_seed(0)
    network = PlainMtan([2, 3], depth=10, width=1)
    batches = {k: (torch.randn(4, 3, 64, 64), torch.arange(4) % n) for k, n in enumerate((2, 3))}
    step = plain_loop(network, batches, torch.optim.SGD(network.parameters(), 0.1))

    def losses() -> list[float]:
        with torch.no_grad():
            return [F.cross_entropy(network(x, k), y).item() for k, (x, y) in batches.items()]

    before = losses()
    assert [step() for _ in range(8)] == [8] * 8
    assert all(late < early for early, late in zip(before, losses(), strict=True))
