"""3x3 convolutions by Winograd's minimal filtering, which multiplies 4 times for an output where the plain way does 9 times.

Lavin and Gray 2016, *Fast Algorithms for Convolutional Neural Networks*, section 4.1: F(2x2, 3x3). An image is cut into tiles
of 4x4 pixels that overlap by two; a tile d and a filter g give the 2x2 outputs A^T [(G g G^T) * (B^T d B)] A, in which the
product in the middle is, for each of the 16 places, a matrix product over channels. In exact arithmetic it is the convolution itself.
Differs from the paper: the last rows of B^T and A^T have the other sign, which saves a negation and cancels.

Rounding: sums of up to nine bf16 values stand before and behind the products. The error of outputs and gradients is 0.7 % of their
spread in bf16, where the plain way in bf16 has 0.3 %; in fp32 it is 4e-7, as with the plain way.

An odd side is filled with zeros to an even one.
"""

import math
import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ENOUGH_PRODUCTS = 64 * 128  # input times output channels; with fewer the sums around the products cost what these save
ENOUGH_TILES = 200  # with fewer, what is done to the filters weighs as much as what is done to the images
MOST_FILLED = 1.25  # pixels of odd sides made even, per pixel
BLOCK = 2**22  # bytes of an image that are transformed at a time
_KEEPS_THE_SIZE = ((3, 3), (1, 1), (1, 1), (1, 1))  # kernel, stride, padding, dilation

_WORKSPACES = threading.local()

_G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
_FILTER = torch.kron(_G, _G)  # the 16 places of a tile out of the 9 of a filter


class WinogradConv(nn.Conv2d):
    """A convolution as torch's; in training on a CPU one of 3x3 that keeps the size goes by Winograd's way where that is faster.

    A compiler gets torch's own: it takes no operation apart that writes where it is told to.
    """

    def forward(self, x: Float[Tensor, "batch inputs _ _"]) -> Float[Tensor, "batch outputs _ _"]:
        if self.training and not torch.compiler.is_compiling() and self.suits(x):
            return winograd_conv(x, self.weight, self.bias)
        return super().forward(x)

    def suits(self, x: Tensor) -> bool:
        """Whether these images are of a kind that gains: channels last, little to fill, many tiles and channels."""
        batch, _, height, width = x.shape
        return (
            x.device.type == "cpu"
            and (self.kernel_size, self.stride, self.padding, self.dilation) == _KEEPS_THE_SIZE
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.in_channels * self.out_channels >= ENOUGH_PRODUCTS
            and _even(height) * _even(width) <= MOST_FILLED * height * width
            and batch * height * width >= 4 * ENOUGH_TILES
            and x.is_contiguous(memory_format=torch.channels_last)
        )


def winograd_conv(
    x: Float[Tensor, "batch inputs h w"], weight: Float[Tensor, "outputs inputs 3 3"], bias: Tensor | None
) -> Float[Tensor, "batch outputs h w"]:
    """Convolution with zeros around the image; channels last. Obeys autocast as `F.conv2d` does."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    made: Tensor = _Winograd.apply(x.permute(0, 2, 3, 1), weight, bias)
    return made.permute(0, 3, 1, 2)


class _Winograd(torch.autograd.Function):
    """Images are (batch, h, w, channels). Their tiles, four times as large, are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tiles, filters = _tiles(x), _filters(weight, x.dtype)
        ctx.save_for_backward(tiles, filters)
        ctx.shape, ctx.dtype, ctx.biased = x.shape, weight.dtype, bias is not None
        batch, height, width, _ = x.shape
        products = _workspace("products", x.dtype, 16, tiles.shape[1], len(weight))
        torch.bmm(tiles, filters.transpose(1, 2), out=products)
        products = products.view(4, 4, batch, -(-height // 2), -(-width // 2), -1)
        return _outputs(products, None if bias is None else bias.to(x.dtype))[:, :height, :width].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        tiles, filters = ctx.saved_tensors
        to_products = _spread(gradient.contiguous())
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_tiles = torch.bmm(to_products, filters, out=_workspace("tiles", gradient.dtype, *tiles.shape))
            to_x = _overlapped(to_tiles, ctx.shape)
        if ctx.needs_input_grad[1]:
            to_weight = _taps(_channel_products(to_products, tiles).to(ctx.dtype))
        if ctx.biased and ctx.needs_input_grad[2]:
            to_bias = to_products[5].sum(0, dtype=ctx.dtype)
        return to_x, to_weight, to_bias


def _workspace(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory for what a convolution makes and uses up, the same for all of a thread's; it holds the largest one's.

    Tensors four and eight times as large as an image, asked for and given back at every convolution, leave holes that others
    take a piece of: memory then grows for many steps, and is mapped and zeroed anew.
    """
    size = math.prod(shape) * dtype.itemsize
    kept: Tensor | None = getattr(_WORKSPACES, name, None)
    if kept is None or len(kept) < size:
        with torch.inference_mode(False):  # what is made in that mode cannot be written outside it
            kept = torch.empty(size, dtype=torch.uint8)
        setattr(_WORKSPACES, name, kept)
    return kept[:size].view(dtype).view(shape)


def _filters(weight: Tensor, dtype: torch.dtype) -> Float[Tensor, "16 outputs inputs"]:
    """G g G^T, in the weights' own precision until the end."""
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    with torch.autocast(weight.device.type, enabled=False):
        return (_FILTER.to(weight.dtype) @ taps).to(dtype).view(16, *weight.shape[:2])


def _channel_products(
    outputs: Float[Tensor, "16 tiles outputs"], inputs: Float[Tensor, "16 tiles inputs"]
) -> Float[Tensor, "16 outputs inputs"]:
    """Sums over tiles. The wider matrix stands right, which is up to a tenth faster."""
    if outputs.shape[2] > inputs.shape[2]:
        return torch.bmm(inputs.transpose(1, 2), outputs).transpose(1, 2)
    return torch.bmm(outputs.transpose(1, 2), inputs)


def _taps(filters: Float[Tensor, "16 outputs inputs"]) -> Float[Tensor, "outputs inputs 3 3"]:
    """The transpose of `_filters`, in the precision of what is given."""
    with torch.autocast(filters.device.type, enabled=False):
        taps = _FILTER.to(filters.dtype).T @ filters.reshape(16, -1)
    return taps.view(3, 3, *filters.shape[1:]).permute(2, 3, 0, 1)


def _even(side: int) -> int:
    return side + side % 2


def _blocks(images: Float[Tensor, "batch h w channels"]) -> Iterator[tuple[slice, slice]]:
    """Images in parts that fit a cache: samples, and rows of tiles.

    What goes by several passes over a part, each of them an operation of torch's, then reads and writes memory once.
    """
    batch, height, width, channels = images.shape
    rows = _even(height) // 2
    fit = max(1, BLOCK // (2 * _even(width) * channels * images.element_size()))
    samples = max(1, fit // rows)
    for sample in range(0, batch, samples):
        for row in range(0, rows, fit):
            yield slice(sample, min(sample + samples, batch)), slice(row, min(row + fit, rows))


def _tiles(x: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "16 tiles channels"]:
    """B^T d B of all tiles d."""
    batch, height, width, channels = x.shape
    made = x.new_empty(4, 4, batch, _even(height) // 2, _even(width) // 2, channels)
    for samples, rows in _blocks(x):
        above = 2 * rows.start - 1  # the first row, which before the image is of zeros
        inside = x[samples, max(0, above) : 2 * rows.stop + 1]
        halves = x.new_empty(2, len(inside), 2 * (rows.stop - rows.start) + 2, made.shape[4] + 1, channels)
        _part_columns(inside, halves, max(0, -above))
        _tile(halves, made[:, :, samples, rows])
    return made.view(16, -1, channels)


def _part_columns(
    inside: Float[Tensor, "batch h w channels"], halves: Float[Tensor, "2 batch _ _ channels"], first: int
) -> None:
    """The columns before the even places (-1, 1, 3, ...) and at them (0, 2, 4, ...), by themselves, in zeros; rows from `first` on.

    What follows then goes along whole lines of memory, not from every second pixel to the next.
    """
    last, width = first + inside.shape[1], inside.shape[2]
    halves[:, :, :first].zero_()
    halves[:, :, last:].zero_()
    odd, even = halves[:, :, first:last]
    odd[:, :, 0].zero_()
    odd[:, :, 1 : 1 + width // 2] = inside[:, :, 1::2]
    odd[:, :, 1 + width // 2 :].zero_()
    even[:, :, : (width + 1) // 2] = inside[:, :, 0::2]
    even[:, :, (width + 1) // 2 :].zero_()


def _tile(halves: Float[Tensor, "2 batch _ _ channels"], made: Float[Tensor, "4 4 batch h2 w2 channels"]) -> None:
    height = 2 * made.shape[3]
    for row, (odd, even) in zip(made, _four([halves[:, :, i : i + height : 2] for i in range(4)]), strict=True):
        first, second, third, fourth = odd[:, :, :-1], even[:, :, :-1], odd[:, :, 1:], even[:, :, 1:]
        torch.sub(first, third, out=row[0])
        torch.add(second, third, out=row[1])
        torch.sub(third, second, out=row[2])
        torch.sub(fourth, second, out=row[3])


def _four(d: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B^T along one axis."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]


def _outputs(
    products: Float[Tensor, "4 4 batch h2 w2 channels"], bias: Float[Tensor, " channels"] | None
) -> Float[Tensor, "batch _ _ channels"]:
    """A^T m A of all tiles m, at their places, and the bias, which is left in the products."""
    _, _, batch, height, width, channels = products.shape
    made = products.new_empty(batch, 2 * height, 2 * width, channels)
    for samples, rows in _blocks(made):
        first, second, third, fourth = products[:, :, samples, rows]
        part = made[samples, 2 * rows.start : 2 * rows.stop]
        if bias is not None:
            second[1] += bias  # this place counts once in all four outputs
        for i, row in enumerate(((first + second).add_(third), (second - third).add_(fourth))):
            torch.add(row[0].add_(row[1]), row[2], out=part[:, i::2, 0::2])
            torch.add(row[1].sub_(row[2]), row[3], out=part[:, i::2, 1::2])
    return made


def _spread(gradient: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "16 tiles channels"]:
    """A y A^T of all tiles' 2x2 gradients y, zeros behind odd sides: the transpose of `_outputs`. In a workspace."""
    batch, height, width, channels = gradient.shape
    made = _workspace("products", gradient.dtype, 4, 4, batch, _even(height) // 2, _even(width) // 2, channels)
    for samples, rows in _blocks(gradient):
        part = gradient[samples, 2 * rows.start : 2 * rows.stop]
        if height % 2 or width % 2:
            part = F.pad(part, (0, 0, 0, width % 2, 0, part.shape[1] % 2))
        block = made[:, :, samples, rows]
        for row, column in product((0, 1), (0, 1)):
            block[3 * row, 3 * column] = part[:, row::2, column::2]
        torch.add(block[0, ::3], block[3, ::3], out=block[1, ::3])
        torch.sub(block[0, ::3], block[3, ::3], out=block[2, ::3])
        torch.add(block[:, 0], block[:, 3], out=block[:, 1])
        torch.sub(block[:, 0], block[:, 3], out=block[:, 2])
    return made.view(16, -1, channels)


def _overlapped(tiles: Float[Tensor, "16 tiles channels"], shape: torch.Size) -> Float[Tensor, "batch h w channels"]:
    """B v B^T of all tiles v, added where they overlap, to an image of that shape: the transpose of `_tiles`."""
    batch, height, width, channels = shape[0], _even(shape[1]), _even(shape[2]), shape[3]
    v = tiles.view(4, 4, batch, height // 2, width // 2, channels)
    image = tiles.new_empty(batch, height, width, channels)
    for samples, rows in _blocks(image):
        part = image[samples, 2 * rows.start : 2 * rows.stop]
        columns = part.new_empty(4, part.shape[0], part.shape[1], width // 2, channels)
        for made, *places in zip(columns, *v[:, :, samples], strict=True):
            _along(made[:, 0::2], made[:, 1::2], places, 1, rows)
        halves = part.new_empty(2, *columns.shape[1:])
        _along(halves[0], halves[1], list(columns), 2, slice(0, width // 2))
        part[:, :, 0::2], part[:, :, 1::2] = halves
    return image[:, : shape[1], : shape[2]].contiguous()


def _along(even: Tensor, odd: Tensor, v: list[Tensor], axis: int, part: slice) -> None:
    """The transpose of B^T along one axis: tile t covers the pixels 2t - 1 to 2t + 2. `even` and `odd` are those of the tiles in `part`."""
    size, start, stop = v[0].shape[axis], part.start, part.stop
    here = [one.narrow(axis, start, stop - start) for one in v]
    torch.sub(here[1], here[2], out=even)
    even -= here[3]
    first = max(start, 1)  # the tile before the first adds nothing
    even.narrow(axis, first - start, stop - first).add_(v[3].narrow(axis, first - 1, stop - first))
    torch.add(here[1], here[2], out=odd)
    odd -= here[0]
    last = min(stop, size - 1)
    odd.narrow(axis, 0, last - start).add_(v[0].narrow(axis, start + 1, last - start))
