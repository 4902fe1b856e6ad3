"""The network against the formulas of the papers, and what a task's batch may touch."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mtan_core.errors import UserError
from mtan_core.ladder import Ladder, MaskActivation
from mtan_core.network import AttentionNetwork, HeadPool
from mtan_core.norm import NormMode
from mtan_core.pools import WideResNet
from mtan_core.reestimate import reestimate
from mtan_core.segments import Segments
from mtan_core.step import Batch, TrainingStep
from mtan_core.weightings.equal import Equal
from tests.mtan_core.oracle import Oracle

CLASSES = {"digits": 5, "flowers": 3, "signs": 4}
NORMS: list[NormMode] = ["domain", "statistics", "shared"]


def network(
    norm: NormMode = "domain", head_pool: HeadPool = "global", depth: int = 10, activation: MaskActivation = "sigmoid"
) -> AttentionNetwork:
    torch.manual_seed(1)
    pool = WideResNet(depth, 1, norm)
    made = AttentionNetwork(pool, Ladder(pool.stages, norm, activation), CLASSES, head_pool).double()
    for parameter in made.parameters():  # fresh norms have weight 1 and bias 0, which would hide mistakes
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def alone(batch: Tensor) -> Segments:
    return Segments(("digits",), (len(batch),))


def images(sizes: dict[str, int], side: int = 16, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {task: torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator) for task, n in sizes.items()}


EQUAL = {"digits": 3, "flowers": 3, "signs": 3}
UNEQUAL = {"digits": 2, "flowers": 5, "signs": 3}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize("training", [True, False])
def test_network_is_the_papers_formula(norm: NormMode, depth: int, training: bool) -> None:
    net = network(norm, depth=depth)
    net(images(EQUAL)["digits"], "digits")  # moves the running statistics off 0 and 1
    state = {name: value.clone() for name, value in net.state_dict().items()}
    net.train(training)
    for task, batch in images(EQUAL, seed=2).items():
        assert_close(net(batch, task), Oracle(state, task, training)(batch), rtol=0, atol=1e-10)


@pytest.mark.parametrize("side", [64, 72])
def test_head_pool_of_the_authors_averages_the_upper_left_window(side: int) -> None:
    net = network(head_pool="8x8").eval()
    batch = images({"digits": 2}, side)["digits"]
    assert_close(net(batch, "digits"), Oracle(net.state_dict(), "digits", False, "8x8")(batch), rtol=0, atol=1e-10)


def test_global_head_pool_covers_the_whole_map_of_a_72_pixel_image() -> None:
    net = network().eval()
    batch = images({"digits": 1}, 72)["digits"].requires_grad_()
    net(batch, "digits").sum().backward()
    assert batch.grad is not None
    assert batch.grad[..., -4:, -4:].abs().min() > 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joint_pass_equals_the_loop(norm: NormMode, sizes: dict[str, int], layout: torch.memory_format) -> None:
    """Outputs, every gradient and every buffer, with the loss weights of a weighting."""
    factors = {"digits": 0.5, "flowers": 2.0, "signs": 1.0}
    joint, loop = network(norm).to(memory_format=layout), network(norm)
    batches = {task: batch.contiguous(memory_format=layout) for task, batch in images(sizes).items()}
    together = joint.joint(batches)
    torch.stack([factors[task] * logits.square().sum() for task, logits in together.items()]).sum().backward()
    state = {name: value.clone() for name, value in loop.state_dict().items()}
    for task, batch in batches.items():
        logits = loop(batch, task)
        assert_close(together[task], logits, rtol=0, atol=1e-10)
        assert_close(logits, Oracle(state, task, training=True)(batch), rtol=0, atol=1e-10)
        (factors[task] * logits.square().sum()).backward()
    for (name, a), (_, b) in zip(joint.named_parameters(), loop.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        scale = max(1.0, b.grad.abs().max().item())
        assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    for (name, a), (_, b) in zip(joint.named_buffers(), loop.named_buffers(), strict=True):
        assert_close(a, b, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_gradients_are_those_of_the_formula() -> None:
    net = network("domain")
    state = {name: value.detach().clone().requires_grad_() for name, value in net.state_dict().items()}
    batch = images(EQUAL)["flowers"]
    net(batch, "flowers").square().sum().backward()
    Oracle(state, "flowers", training=True)(batch).square().sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is None:
            assert state[name].grad is None, name
            continue
        expected = state[name].grad
        assert expected is not None
        scale = max(1.0, expected.abs().max().item())
        assert_close(parameter.grad / scale, expected / scale, rtol=0, atol=1e-10)


def test_running_statistics_are_those_of_torch_batch_norm() -> None:
    net = network("shared")
    reference = torch.nn.BatchNorm2d(16).double()
    batches = images(UNEQUAL)
    net.joint(batches)
    for batch in batches.values():
        reference(net.pool.stem(batch, alone(batch)))  # type: ignore[operator]
    held = net.pool.groups[0][0].norm1.statistics["shared"]  # type: ignore[index,union-attr]
    assert reference.running_mean is not None and reference.running_var is not None
    assert_close(held.mean, reference.running_mean, rtol=0, atol=1e-12)
    assert_close(held.var, reference.running_var, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_touches_only_shared_and_own_parameters(norm: NormMode) -> None:
    net = network(norm)
    net(images(EQUAL)["flowers"], "flowers").sum().backward()
    groups = net.parameter_groups()
    reached = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert reached == {*groups["shared"], *groups["flowers"]}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_domains_parameters_never_move_without_its_data(kind: str) -> None:
    """Neither weight decay nor momentum moves them; nor do its running statistics move."""
    net = network("domain")
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    }
    step = TrainingStep(net, Equal(list(CLASSES)), makers[kind](net.parameters()))
    labels = torch.tensor([0, 1, 2])
    step({task: Batch(batch, labels) for task, batch in images(EQUAL).items()})  # fills the momentum of all
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step({"digits": Batch(images(EQUAL, seed=1)["digits"], labels)})
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert any(".digits." in name for name in moved)
    assert not [name for name in moved if ".flowers." in name or ".signs." in name]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("parts", [2, 3])
def test_accumulating_by_domains_changes_nothing(norm: NormMode, parts: int) -> None:
    labels = torch.tensor([0, 1, 2])
    results = []
    for accumulate in (1, parts):
        net = network(norm)
        step = TrainingStep(
            net, Equal(list(CLASSES)), torch.optim.SGD(net.parameters(), lr=0.01), accumulate=accumulate
        )
        step({task: Batch(batch, labels) for task, batch in images(EQUAL).items()})
        results.append(net.state_dict())
    for name, value in results[0].items():
        assert_close(value, results[1][name], rtol=1e-9, atol=1e-10)


def test_reestimation_gives_each_domain_its_own_statistics_and_changes_no_weight() -> None:
    net = network("shared")
    net.joint(images(EQUAL))
    weights = {name: p.clone() for name, p in net.named_parameters()}
    flowers = images({"flowers": 8}, seed=3)["flowers"]
    reestimate(net, "flowers", [flowers])
    assert all(torch.equal(p, weights[name]) for name, p in net.named_parameters())
    stem = net.pool.stem(flowers, alone(flowers))  # type: ignore[operator]
    held = net.pool.groups[0][0].norm1.statistics["flowers"]  # type: ignore[index,union-attr]
    assert_close(held.mean, stem.mean((0, 2, 3)), rtol=0, atol=1e-12)
    net.eval()
    trained = Oracle(net.state_dict(), "flowers", training=True)(flowers)
    assert_close(net(flowers, "flowers"), trained, rtol=0, atol=0.2)  # biased against unbiased variance


def test_frozen_parts_keep_their_statistics_too() -> None:
    net = network("domain")
    net.train()
    net.freeze(["pool"])
    before = {name: value.clone() for name, value in net.state_dict().items() if name.startswith("pool.")}
    net(images(EQUAL)["digits"], "digits").sum().backward()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("pool."))


@pytest.mark.parametrize("name", ["digits", "shared", "keys", "a.b", "train"])
def test_taken_and_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        network().add_task(name, 3)


def test_masks_lie_between_0_and_1_and_have_the_shapes_of_the_taps() -> None:
    net = network().eval()
    masks = net.masks(images(EQUAL)["signs"], "signs")
    assert [tuple(mask.shape) for mask in masks] == [(3, 16, 16, 16), (3, 16, 8, 8), (3, 32, 4, 4), (3, 64, 2, 2)]
    assert all(mask.min() > 0 and mask.max() < 1 for mask in masks)


def test_masks_switched_off_select_everything() -> None:
    net = network(activation="ones").eval()
    assert all(parameter.grad is None for parameter in net.parameters())
    net(images(EQUAL)["digits"], "digits").sum().backward()
    assert all(p.grad is None for name, p in net.named_parameters() if ".masks." in name)
