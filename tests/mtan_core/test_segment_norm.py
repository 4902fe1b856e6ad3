"""The batch norm of a joint batch as an operator of torch's: what the compiler and autograd expect of one."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from mtan_core.segment_norm import _segment_norm
from tests.mtan_core.tiny import tiny_batches, tiny_network


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own checking
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("relu", [False, True])
def test_the_operator_is_one_by_torch_s_own_checks(layout: torch.memory_format, relu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, 4, 6, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
    weight, bias = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator).unbind()
    learning = [
        tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in (features, weight, bias)
    ]
    torch.library.opcheck(_segment_norm, (*learning, [2, 3], 1e-5, relu))
    assert torch.autograd.gradcheck(lambda x, w, b: _segment_norm(x, w, b, [2, 3], 1e-5, relu)[0], learning)


def test_a_joint_pass_compiles_in_one_graph_and_gives_the_same() -> None:
    """In a process of its own, as the compiler cannot trace the shape checks that all other tests run with."""
    subprocess.run(
        [sys.executable, "-c", "import tests.mtan_core.test_segment_norm as t; t.compare_compiled()"], check=True
    )


def compare_compiled() -> None:
    """By the compiler's tracing and autograd, without its code generator, which takes minutes."""
    results = []
    for compiled in (False, True):
        network = tiny_network()
        joint = network.joint
        if compiled:
            joint = torch.compile(joint, backend="aot_eager", fullgraph=True, dynamic=False)
        logits = joint({task: batch.images for task, batch in tiny_batches().items()})
        torch.stack([values.square().sum() for values in logits.values()]).sum().backward()
        results.append({**logits, **{n: p.grad for n, p in network.named_parameters()}, **network.state_dict()})
    for name, value in results[0].items():
        assert_close(results[1][name], value, rtol=1e-9, atol=1e-10)
