"""What this machine's convolutions can do at best, as the limit that a training step is measured against."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench.plain import PlainMtan
from experiments.bench.rounds import Clock

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = (torch.channels_last, torch.contiguous_format)
SMALL = 0.003  # a shape with a smaller share of the network's arithmetic is not timed


@dataclass(frozen=True)
class ConvolutionShape:
    """A square convolution as a network uses it; `size` is the side of its input, in pixels."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int
    first: bool = False  # the images' own convolution, whose input needs no gradient

    def flops(self, images: int) -> int:
        """Of forward, both backward convolutions and no bias (a multiply-add is two)."""
        side = -(-self.size // self.stride)
        once = 2 * images * side**2 * self.inputs * self.outputs * self.kernel**2
        return once * (2 if self.first else 3)

    def tensors(self, images: int, dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor, Tensor]:
        """Random input, weight, and gradient of the output."""
        side = -(-self.size // self.stride)
        shapes = (
            (images, self.inputs, self.size, self.size),
            (self.outputs, self.inputs, self.kernel, self.kernel),
            (images, self.outputs, side, side),
        )
        x, weight, gradient = (torch.randn(s).to(dtype).contiguous(memory_format=layout) for s in shapes)
        return x, weight, gradient


def convolution_shapes(network: PlainMtan, size: int) -> Counter[ConvolutionShape]:
    """The convolutions that one image of `size` pixels passes, with how often."""
    shapes: Counter[ConvolutionShape] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        first = module is network.conv1
        sides = module.kernel_size[0], module.stride[0], inputs[0].shape[-1]
        shapes[ConvolutionShape(module.in_channels, module.out_channels, *sides, first)] += 1

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(torch.empty(2, 3, size, size, device=next(network.parameters()).device), 0)
    for hook in hooks:
        hook.remove()
    return shapes


def step_flops(size: int, depth: int = 28, width: int = 4) -> float:
    """Floating-point operations per image of one training step (forward and backward), counted by torch; nothing is run."""
    with torch.device("meta"):
        network = PlainMtan([100], depth, width)
        images = torch.empty(2, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        network(images, 0).sum().backward()
    return counter.get_total_flops() / 2


def best_seconds(work: Callable[[], object], seconds: float, clock: Clock) -> float:
    """The shortest time of `work` among repetitions (three at least) within about `seconds`, after one to warm up."""
    now = process_time if clock == "cpu" else perf_counter
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begun = now()
        work()
        times.append(now() - begun)
    return min(times)


def convolution_seconds(
    shape: ConvolutionShape, images: int, dtype: torch.dtype, seconds: float, clock: Clock = "wall"
) -> float:
    """Time of the fastest forward plus the fastest backward of this convolution, in the better layout."""
    times = []
    for layout in LAYOUTS:
        x, weight, gradient = shape.tensors(images, dtype, layout)
        stride, padding = [shape.stride] * 2, [shape.kernel // 2] * 2

        def forward(x: Tensor = x, w: Tensor = weight, s: list[int] = stride, p: list[int] = padding) -> Tensor:
            return torch.conv2d(x, w, None, s, p)

        def backward(
            g: Tensor = gradient, x: Tensor = x, w: Tensor = weight, s: list[int] = stride, p: list[int] = padding
        ) -> object:
            needed = [not shape.first, True, False]
            return torch.ops.aten.convolution_backward(g, x, w, None, s, p, [1, 1], False, [0, 0], 1, needed)

        times.append(best_seconds(forward, seconds, clock) + best_seconds(backward, seconds, clock))
    return min(times)


def matmul_rate(dtype: torch.dtype, seconds: float, clock: Clock = "wall", side: int = 2048) -> float:
    """The best rate (FLOP/s) of a square matrix product."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / best_seconds(lambda: a @ b, seconds, clock)


def measure_limits(
    images: int, size: int, seconds: float, clock: Clock, advance: Callable[..., None]
) -> dict[str, dict[str, Any]]:
    """Rates (GFLOP/s) per precision: `convolution` and `best_convolution` of WRN-28-4's own convolutions, and `matmul`.

    `convolution` is the rate at which the network's convolutions would run one after the other with nothing in between,
    each in its better layout: the time of each weighs as often as the network uses it. `best_convolution` is that of the fastest.
    """
    with torch.device("meta"):
        shapes = convolution_shapes(PlainMtan([100]), size)
    timed = _large(shapes)
    limits = {}
    for name, dtype in DTYPES.items():
        flops = spent = best = 0.0
        for shape in timed:
            taken = convolution_seconds(shape, images, dtype, seconds, clock)
            flops += shape.flops(images) * shapes[shape]
            spent += taken * shapes[shape]
            best = max(best, shape.flops(images) / taken)
            advance(note=f"{name}: {shape.inputs}->{shape.outputs} at {shape.size} px")
        rates = {"convolution": flops / spent, "best_convolution": best, "matmul": matmul_rate(dtype, seconds, clock)}
        limits[name] = {key: rate / 1e9 for key, rate in rates.items()}
    return limits


def _large(shapes: Counter[ConvolutionShape]) -> Iterable[ConvolutionShape]:
    total = sum(shape.flops(1) * count for shape, count in shapes.items())
    return [shape for shape, count in shapes.items() if shape.flops(1) * count > SMALL * total]
