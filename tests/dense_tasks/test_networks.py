"""The dense networks: parameter counts, the authors' outputs, equality with a plain loop over tasks, options."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dense_tasks.import_weights import STITCHES, _Names, import_network, imported
from dense_tasks.networks import NYUV2_TASKS, build_network, methods, parameter_counts
from mtan_core.dense import DenseNetwork
from mtan_core.errors import UserError
from tests.dense_tasks.oracle import Oracle, authors_state

PAPER = {  # FACTS 1.8: with a log-variance for each of several tasks, which here belongs to the weighting
    "single": 24_981_069, "stan": 38_185_805, "split-standard": 25_055_188, "split-wide": 43_934_164,
    "split-deep": 50_807_764, "dense": 123_743_995, "cross-stitch": 74_941_807, "mtan": 44_229_076,
}  # fmt: skip
GOLDEN = [
    "cross", "dense", "mtan", "single_depth", "single_normal", "single_semantic", "split_deep", "split_standard",
    "split_wide", "stan_depth", "stan_normal", "stan_semantic",
]  # fmt: skip
SMALL, OUTPUTS = (2, 3, 4, 5, 5), (4, 1, 3)


def tasks_of(method: str, outputs: tuple[int, ...] = OUTPUTS) -> dict[str, int]:
    tasks = dict(zip(("semantic", "depth", "normal"), outputs, strict=False))
    return {"semantic": outputs[0]} if methods()[method].one_task else tasks


@pytest.mark.parametrize("method", PAPER)
def test_the_paper_counts(method: str) -> None:
    tasks = {"semantic": 13} if methods()[method].one_task else dict(NYUV2_TASKS)
    with torch.device("meta"):
        network = build_network(method, tasks, paper=True)
    log_variances = len(tasks) if len(tasks) > 1 else 0
    assert parameter_counts(network)["parameters"] == PAPER[method] - log_variances


def test_a_network_for_each_task_has_as_many_parameters_as_they_have() -> None:
    three = build_network("stan", {"a": 4, "b": 1}, filters=SMALL)
    each = [build_network("stan", {"one": outputs}, filters=SMALL) for outputs in (4, 1)]
    counts = [parameter_counts(network)["parameters"] for network in each]
    assert parameter_counts(three) == {"parameters": sum(counts), "shared_parameters": 0}


def finished(task: str, raw: Tensor) -> Tensor:
    """As the authors' networks end."""
    if task == "semantic":
        return raw.log_softmax(1)
    return raw / raw.norm(dim=1, keepdim=True) if task == "normal" else raw


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_of_the_authors_networks(shared: Path, name: str) -> None:
    found = import_network(shared / "golden" / f"segnet_a_{name}.pth")
    assert found.filters == ((4, 8, 8, 12, 24) if name == "split_wide" else (4, 8, 8, 12, 12))
    golden = np.load(shared / "golden" / f"segnet_a_{name}.npz")
    with torch.inference_mode():
        outputs = found.network(torch.from_numpy(golden["x"]))
    assert len(outputs) == len(golden.files) - 1
    for place, (task, raw) in enumerate(outputs.items()):
        # where a raw normal is zero, the authors divide by zero
        np.testing.assert_allclose(finished(task, raw).numpy(), golden[f"y{place}"], rtol=0, atol=1e-5, equal_nan=True)
    assert found.log_variances == (None if len(outputs) == 1 else dict.fromkeys(NYUV2_TASKS, -0.5))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", PAPER)
def test_equals_the_plain_loop(method: str, training: bool, channels_last: bool) -> None:
    """Other widths than the golden files': outputs, and in training gradients and running statistics."""
    torch.manual_seed(3)
    filters = (*SMALL[:-1], 7) if method == "split-wide" else SMALL
    tasks = tasks_of(method)
    state = authors_state(method, filters, tuple(tasks.values()))
    found = imported(state, "state", "semantic" if method in ("single", "stan") else None)
    assert (found.method, found.filters, found.tasks) == (method, filters, tasks)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    compare(found.network.double().to(memory_format=layout), state, Oracle(method, state, len(tasks), training))


@pytest.mark.parametrize("training", [False, True])
def test_every_task_has_its_own_norms_behind_shared_convolutions(training: bool) -> None:
    torch.manual_seed(4)
    state = authors_state("mtan", SMALL, OUTPUTS, own=True)
    network = build_network("mtan", tasks_of("mtan"), filters=SMALL, norm="domain").double()
    network.load_state_dict({ours(name, network, "mtan"): value for name, value in state.items() if name != "logsigma"})
    compare(network, state, Oracle("mtan", state, len(OUTPUTS), training, own=True))


def test_own_statistics_with_shared_scales() -> None:
    torch.manual_seed(4)
    shared = build_network("mtan", tasks_of("mtan"), filters=SMALL, norm="shared").double().train()
    apart = build_network("mtan", tasks_of("mtan"), filters=SMALL, norm="statistics").double().train()
    apart.load_state_dict(shared.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    for task, output in apart(images).items():
        torch.testing.assert_close(output, shared(images)[task], rtol=0, atol=1e-10)
    means = [norm.statistics[task].mean for norm in apart.task_norms() for task in apart.tasks]
    assert len({tuple(mean.tolist()) for mean in means}) == len(means)


def ours(name: str, network: DenseNetwork, method: str) -> str:
    """Our name of a tensor of the oracle's, one of a single task's own norms too."""
    own, alone = name.split("@") if "@" in name else (None, None), methods()[method].one_task
    plain = name if own[0] is None else f"{own[0]}.{own[1].split('.')[1]}"  # type: ignore[union-attr]
    made = _Names(list(network.tasks), 5, alone, method == "split-deep").ours(plain)
    return made if own[0] is None else made.replace(".shared.", f".{list(network.tasks)[int(own[1][0])]}.")  # type: ignore[index]


def compare(network: DenseNetwork, state: dict[str, Tensor], oracle: Oracle) -> None:
    """Outputs, gradients of a loss that weighs every value differently, and buffers, within 1e-10 (of gradients beyond 1, their part).

    Gradients of tens, which pass through two dozen convolutions, differ in their twelfth digit, by the machine's own kernels.
    """
    network.train(oracle.training)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    learnt = {n: v for n, v in state.items() if "running" not in n and n != "logsigma"}
    for value in learnt.values():
        value.requires_grad_(True)
    outputs, expected = network(images), oracle(images)
    for output, wanted in zip(outputs.values(), expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-10)
    if not oracle.training:
        return
    weights = [torch.randn_like(wanted) for wanted in expected]
    sum((o * w).mean() for o, w in zip(outputs.values(), weights, strict=True)).backward()  # type: ignore[union-attr]
    sum((o * w).mean() for o, w in zip(expected, weights, strict=True)).backward()  # type: ignore[union-attr]
    held, parameters = network.state_dict(), dict(network.named_parameters())
    for name, value in state.items():
        if name in STITCHES:
            found = [parameters[f"{STITCHES[name]}.{level}.weight"].grad for level in range(len(value))]
            torch.testing.assert_close(torch.cat(found), value.grad, rtol=1e-10, atol=1e-10)  # type: ignore[arg-type]
        elif name in learnt:
            gradient = parameters[ours(name, network, oracle.method)].grad
            assert (gradient is None) == (value.grad is None), name  # Dense's spare block
            if gradient is not None:
                torch.testing.assert_close(gradient, value.grad, rtol=1e-10, atol=1e-10)
        elif name != "logsigma":
            torch.testing.assert_close(held[ours(name, network, oracle.method)], value, rtol=0, atol=1e-10)


def test_cross_stitch_mixes_for_each_stream_by_default() -> None:
    network = build_network("cross-stitch", tasks_of("cross-stitch"), filters=SMALL)
    weight = network.get_parameter("stitches_up.0.weight")
    torch.testing.assert_close(weight, torch.full((3, 3), 0.05) + 0.85 * torch.eye(3))
    network.eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("stitches"):
                parameter.copy_(torch.eye(3))  # every stream alone
    state = {
        name.removeprefix("own.depth."): v for name, v in network.state_dict().items() if name.startswith("own.depth.")
    }
    alone = build_network("single", {"depth": 1}, filters=SMALL).eval()
    alone.load_state_dict({
        **{f"own.depth.pool.{name}": value for name, value in state.items()},
        **{f"own.depth.{n}": v for n, v in network.state_dict().items() if n.startswith("heads.depth.")},
    })  # fmt: skip
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images)["depth"], alone(images)["depth"], rtol=0, atol=1e-6)


def test_dense_has_no_block_that_nothing_uses_by_default() -> None:
    network = build_network("dense", tasks_of("dense"), filters=SMALL)
    sum(output.sum() for output in network(torch.randn(2, 3, 32, 32)).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("method", PAPER)
def test_any_tasks(method: str) -> None:
    tasks = {"edges": 1, "saliency": 2}
    network = build_network(method, tasks, filters=SMALL)
    outputs = network(torch.randn(2, 3, 32, 64))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "edges": (2, 1, 32, 64), "saliency": (2, 2, 32, 64)
    }  # fmt: skip
    groups = network.parameter_groups()
    assert list(groups) == ["shared", *tasks] and all(groups[task] for task in tasks)
    assert sum(len(group) for group in groups.values()) == len(list(network.parameters()))
    outputs["edges"].sum().backward()  # reaches nothing of the other task's own, but where streams are stitched
    if method != "cross-stitch":
        assert all(parameter.grad is None for parameter in groups["saliency"].values()) or method == "mtan"


def test_masks() -> None:
    network = build_network("mtan", tasks_of("mtan"), filters=SMALL).eval()
    masks = network.masks(torch.randn(2, 3, 64, 32))
    sizes = [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2)]
    for stages in masks.values():
        assert [tuple(mask.shape) for mask in stages] == [
            *((2, c, *size) for c, size in zip(SMALL, sizes, strict=True)),
            *((2, c, *size) for c, size in zip((5, 4, 3, 2, 2), sizes[::-1], strict=True)),
        ]
        assert all(bool(((mask >= 0) & (mask <= 1)).all()) for mask in stages)
    with pytest.raises(UserError, match="attention masks"):
        build_network("dense", {"depth": 1}, filters=SMALL).masks(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: build_network("mtam", NYUV2_TASKS), "no method 'mtam' .*mtan"),
        (lambda: build_network("mtan", {}), "at least one task"),
        (lambda: build_network("mtan", {"shared": 1}), "'shared'"),
        (lambda: build_network("mtan", {"depth": 0}), "'depth', found 0"),
        (lambda: build_network("mtan", {"depth": 1}, filter=(1, 2)), "option 'filter'.*filters"),
        (lambda: build_network("mtan", {"depth": 1}, filters=SMALL)(torch.zeros(1, 3, 40, 64)), "multiples of 32, found 40x64"),
    ],
)  # fmt: skip
def test_refused(wrong, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=told):
        wrong()
