"""3x3 convolutions by Winograd's minimal filtering, which multiplies 3 times for an output where the plain way does 9 times.

Lavin and Gray 2016, *Fast Algorithms for Convolutional Neural Networks*, section 4: F(2x4, 3x3), the nesting of their F(2, 3) down
the rows and F(4, 3) along them. An image is cut into tiles of 4x6 pixels that overlap by two; a tile d and a filter g give the 2x4
outputs A^T [(G g G^T) * (B^T d B)] A, in which the product in the middle is, for each of the 24 places, a matrix product over
channels. In exact arithmetic it is the convolution itself. Differs from the paper: F(4, 3) interpolates at 0, +-3/4 and +-3/2
instead of 0, +-1 and +-2, which leaves two thirds of the rounding error (on the choice of points: Barabasz et al. 2020, *Error
Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks*); some rows of B^T, and with them those of G,
are scaled or have the other sign, which saves operations.

Rounding: the error of outputs and gradients is 0.6 to 1.3 % of their spread in bf16, where the plain way in bf16 has 0.2 %; in fp32
it is below 1e-6, as with the plain way.

Sides that are no multiples of 2 and 4 are filled with zeros.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ENOUGH_PRODUCTS = 64 * 128  # input times output channels; with fewer the sums around the products cost what these save
ENOUGH_TILES = 100  # with fewer, what is done to the filters weighs as much as what is done to the images
MOST_FILLED = 1.5  # pixels of sides made multiples of 2 and 4, per pixel
BLOCK = 2**22  # bytes of an image that are transformed at a time
_KEEPS_THE_SIZE = ((3, 3), (1, 1), (1, 1), (1, 1))  # kernel, stride, padding, dilation

_WORKSPACES = threading.local()

NEAR, FAR = 0.75, 1.5  # their powers up to the third need few bits, so that A is exact in bf16
_POINTS = ((NEAR, FAR), (-NEAR, FAR), (FAR, NEAR), (-FAR, NEAR))  # behind 0 and infinity; each beside the other pair's


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


_G2 = _matrix([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_G4 = _matrix([
    [1 / (NEAR * FAR) ** 2, 0, 0], [0, 0, 1], *([p**i / (2 * p * (p**2 - q**2)) for i in range(3)] for p, q in _POINTS),
])  # fmt: skip
_A2 = _matrix([[1, 0], [1, 1], [1, -1], [0, 1]])
_A4 = _matrix([[1, 0, 0, 0], [0, 0, 0, 1], *([p**i for i in range(4)] for p, _ in _POINTS)])
_FILTER = torch.kron(_G2, _G4)  # the 24 places of a tile out of the 9 of a filter
_SPREAD = torch.kron(_A2, _A4)  # the 24 places of a tile out of its 8 outputs


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
        _, rows, columns, _ = _grid((batch, height, width, 0))
        return (
            x.device.type == "cpu"
            and (self.kernel_size, self.stride, self.padding, self.dilation) == _KEEPS_THE_SIZE
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.in_channels * self.out_channels >= ENOUGH_PRODUCTS
            and 8 * rows * columns <= MOST_FILLED * height * width
            and batch * rows * columns >= ENOUGH_TILES
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
    """Images are (batch, h, w, channels). Their tiles, three times as large, are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tiles, filters = _tiles(x), _filters(weight, x.dtype)
        ctx.save_for_backward(tiles, filters)
        ctx.shape, ctx.dtype, ctx.biased = x.shape, weight.dtype, bias is not None
        products = _workspace("products", x.dtype, 24, tiles.shape[1], len(weight))
        torch.bmm(tiles, filters.transpose(1, 2), out=products)
        return _outputs(products, (*x.shape[:3], len(weight)), None if bias is None else bias.to(x.dtype))

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
            to_bias = gradient.sum((0, 1, 2)).to(ctx.dtype)  # with `dtype` it would take ten times as long
        return to_x, to_weight, to_bias


def _workspace(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
    """Memory for what a convolution makes and uses up, the same for all of a thread's; it holds the largest one's.

    Tensors three times as large as an image, asked for and given back at every convolution, leave holes that others
    take a piece of: memory then grows for many steps, and is mapped and zeroed anew.
    """
    size = math.prod(shape) * dtype.itemsize
    kept: Tensor | None = getattr(_WORKSPACES, name, None)
    if kept is None or len(kept) < size:
        with torch.inference_mode(False):  # what is made in that mode cannot be written outside it
            kept = torch.empty(size, dtype=torch.uint8)
        setattr(_WORKSPACES, name, kept)
    return kept[:size].view(dtype).view(shape)


def _filters(weight: Tensor, dtype: torch.dtype) -> Float[Tensor, "24 outputs inputs"]:
    """G g G^T, in the weights' own precision until the end."""
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    with torch.autocast(weight.device.type, enabled=False):
        return (_FILTER.to(weight.dtype) @ taps).to(dtype).view(24, *weight.shape[:2])


def _channel_products(
    outputs: Float[Tensor, "24 tiles outputs"], inputs: Float[Tensor, "24 tiles inputs"]
) -> Float[Tensor, "24 outputs inputs"]:
    """Sums over tiles. The wider matrix stands right, which is up to a tenth faster."""
    if outputs.shape[2] > inputs.shape[2]:
        return torch.bmm(inputs.transpose(1, 2), outputs).transpose(1, 2)
    return torch.bmm(outputs.transpose(1, 2), inputs)


def _taps(filters: Float[Tensor, "24 outputs inputs"]) -> Float[Tensor, "outputs inputs 3 3"]:
    """The transpose of `_filters`, in the precision of what is given."""
    with torch.autocast(filters.device.type, enabled=False):
        taps = _FILTER.to(filters.dtype).T @ filters.reshape(24, -1)
    return taps.view(3, 3, *filters.shape[1:]).permute(2, 3, 0, 1)


@dataclass(frozen=True)
class _Part:
    """A part of images that fits a cache: samples, rows of tiles, and where these stand among all (tiles * channels).

    What goes by several passes over a part, each of them an operation of torch's, then reads and writes memory once.
    """

    samples: slice
    rows: slice
    places: slice
    shape: tuple[int, int, int, int]  # samples, rows and columns of tiles, channels

    @property
    def pixels(self) -> tuple[slice, slice]:
        return self.samples, slice(2 * self.rows.start, 2 * self.rows.stop)


def _grid(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Samples, rows and columns of tiles, channels, of images of that shape."""
    batch, height, width, channels = shape
    return batch, -(-height // 2), -(-width // 4), channels


def _parts(shape: Sequence[int], dtype: torch.dtype) -> Iterator[_Part]:
    batch, rows, columns, channels = _grid(shape)
    line = columns * channels
    fit = max(1, BLOCK // (8 * line * dtype.itemsize))
    samples = max(1, fit // rows)
    for sample in range(0, batch, samples):
        for row in range(0, rows, fit):
            last_sample, last_row = min(sample + samples, batch), min(row + fit, rows)
            places = slice((sample * rows + row) * line, ((last_sample - 1) * rows + last_row) * line)
            made = last_sample - sample, last_row - row, columns, channels
            yield _Part(slice(sample, last_sample), slice(row, last_row), places, made)


def _tiles(x: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "24 tiles channels"]:
    """B^T d B of all tiles d: along the rows first, where an image is not yet spread over overlapping tiles."""
    batch, rows, columns, channels = _grid(x.shape)
    made = x.new_empty(4, 6, batch, rows, columns, channels)
    for part in _parts(x.shape, x.dtype):
        six = _along_rows(_columns(x, part))
        first, second, third, fourth = (six[:, :, i : i + 2 * part.shape[1] : 2] for i in range(4))
        block = made[:, :, part.samples, part.rows]
        torch.sub(first, third, out=block[0])
        torch.add(second, third, out=block[1])
        torch.sub(third, second, out=block[2])
        torch.sub(fourth, second, out=block[3])
    return made.view(24, -1, channels)


def _columns(x: Float[Tensor, "_ _ _ channels"], part: _Part) -> Float[Tensor, "6 batch h tiles channels"]:
    """The six columns of a part's tiles, each by itself, with zeros where tiles stand over the edge. In a workspace.

    What follows then goes along whole lines of memory, not from every fourth pixel to the next.
    """
    samples, rows, columns, channels = part.shape
    above = 2 * part.rows.start - 1
    inside = x[part.samples, max(0, above) : 2 * part.rows.stop + 1]
    made = _workspace("columns", x.dtype, 6, samples, 2 * rows + 2, columns, channels)
    first = max(0, -above)
    last = first + inside.shape[1]
    made[:, :, :first].zero_()
    made[:, :, last:].zero_()
    for i, column in enumerate(made[:, :, first:last]):
        start = 1 if i == 0 else 0  # the first tile's first column is before the image
        pixels = inside[:, :, i - 1 + 4 * start :: 4][:, :, : columns - start]
        column[:, :, :start].zero_()
        column[:, :, start : start + pixels.shape[2]] = pixels
        column[:, :, start + pixels.shape[2] :].zero_()
    return made


def _along_rows(d: Float[Tensor, "6 batch h tiles channels"]) -> Float[Tensor, "6 batch h tiles channels"]:
    """B^T along the second axis of tiles. In a workspace.

    B^T is the product of the points' polynomials, which have the factors x^2 - NEAR^2 and x^2 - FAR^2.
    """
    near = torch.sub(d[2:], d[:4], alpha=NEAR**2, out=_workspace("near", d.dtype, 4, *d.shape[1:]))
    far = torch.sub(d[3:5], d[1:3], alpha=FAR**2, out=_workspace("far", d.dtype, 2, *d.shape[1:]))
    made = _workspace("six", d.dtype, *d.shape)
    torch.sub(near[2:], near[:2], alpha=FAR**2, out=made[:2])
    torch.add(far[0], far[1], alpha=1 / NEAR, out=made[2])
    torch.sub(far[0], far[1], alpha=1 / NEAR, out=made[3])
    torch.add(near[1], near[2], alpha=1 / FAR, out=made[4])
    torch.sub(near[1], near[2], alpha=1 / FAR, out=made[5])
    return made


def _outputs(
    products: Float[Tensor, "24 tiles channels"],
    shape: tuple[int, int, int, int],
    bias: Float[Tensor, " channels"] | None,
) -> Float[Tensor, "batch h w channels"]:
    """A^T m A of all tiles m, at their places in images of that shape, and the bias."""
    batch, rows, columns, channels = _grid(shape)
    made = products.new_empty(batch, 2 * rows, 4 * columns, channels)
    matrix, flat = _SPREAD.T.to(products.dtype), products.view(24, -1)
    for part in _parts(shape, products.dtype):
        eight = _workspace("eight", products.dtype, 8, part.places.stop - part.places.start)
        torch.mm(matrix, flat[:, part.places], out=eight)
        placed = _by_tiles(made[part.pixels])
        if bias is None:
            placed.copy_(eight.view(placed.shape))
        else:
            torch.add(eight.view(placed.shape), bias, out=placed)
    return made[:, : shape[1], : shape[2]].contiguous()


def _by_tiles(images: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "2 4 batch h2 w4 channels"]:
    """A view of images by the 8 places of tiles' outputs."""
    return images.unflatten(2, (-1, 4)).unflatten(1, (-1, 2)).permute(2, 4, 0, 1, 3, 5)


def _spread(gradient: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "24 tiles channels"]:
    """A y A^T of all tiles' 2x4 gradients y, zeros beyond the sides: the transpose of `_outputs`. In a workspace."""
    batch, rows, columns, channels = _grid(gradient.shape)
    made = _workspace("products", gradient.dtype, 4, 6, batch, rows, columns, channels)
    right = 4 * columns - gradient.shape[2]
    for part in _parts(gradient.shape, gradient.dtype):
        pixels = gradient[part.pixels]
        if right or pixels.shape[1] % 2:
            pixels = F.pad(pixels, (0, 0, 0, right, 0, pixels.shape[1] % 2))
        placed = _by_tiles(pixels)
        block = made[:, :, part.samples, part.rows]
        top, middle, difference, bottom = block
        _spread_along_rows(_workspace("eight", gradient.dtype, *placed.shape).copy_(placed), block[::3])
        torch.add(top, bottom, out=middle)
        torch.sub(top, bottom, out=difference)
    return made.view(24, -1, channels)


def _spread_along_rows(
    y: Float[Tensor, "2 4 batch h2 w4 channels"], made: Float[Tensor, "2 6 batch h2 w4 channels"]
) -> None:
    """A along the second axis: polynomials of y at the points, which are y_0 at 0, y_3 at infinity and even +- odd parts elsewhere."""
    made[:, :2] = y[:, ::3]
    for point, place in ((NEAR, 2), (FAR, 4)):
        parts = torch.add(y[:, :2], y[:, 2:], alpha=point**2, out=_workspace("near", y.dtype, *y[:, :2].shape))
        torch.add(parts[:, 0], parts[:, 1], alpha=point, out=made[:, place])
        torch.sub(parts[:, 0], parts[:, 1], alpha=point, out=made[:, place + 1])


def _overlapped(tiles: Float[Tensor, "24 tiles channels"], shape: torch.Size) -> Float[Tensor, "batch h w channels"]:
    """B v B^T of all tiles v, added where they overlap, to an image of that shape: the transpose of `_tiles`."""
    batch, rows, columns, channels = _grid(shape)
    v = tiles.view(4, 6, batch, rows, columns, channels)
    image = tiles.new_empty(batch, 2 * rows, 4 * columns, channels)
    for part in _parts(shape, tiles.dtype):
        samples, height = part.shape[0], 2 * part.shape[1]
        six = _workspace("six", tiles.dtype, 6, samples, height, columns, channels)
        _down_columns(v[:, :, part.samples], part.rows, six)
        four = _add_along_rows(six)
        image[part.pixels].unflatten(2, (columns, 4)).copy_(four.permute(1, 2, 3, 0, 4))
    return image[:, : shape[1], : shape[2]].contiguous()


def _down_columns(
    v: Float[Tensor, "4 6 batch tiles w4 channels"], part: slice, made: Float[Tensor, "6 batch h w4 channels"]
) -> None:
    """The transpose of B^T along the first axis: tile t covers the rows 2t - 1 to 2t + 2. `made` are those of the tiles in `part`."""
    first, second, third, fourth = v[:, :, :, part]
    even, odd = made[:, :, 0::2], made[:, :, 1::2]
    torch.sub(second, third, out=even)
    even -= fourth
    start = max(part.start, 1)  # the tile before the first adds nothing
    even[:, :, start - part.start :] += v[3][:, :, start - 1 : part.stop - 1]
    torch.add(second, third, out=odd)
    odd -= first
    last = min(part.stop, v.shape[3] - 1)
    odd[:, :, : last - part.start] += v[0][:, :, part.start + 1 : last + 1]


def _add_along_rows(six: Float[Tensor, "6 batch h tiles channels"]) -> Float[Tensor, "4 batch h tiles channels"]:
    """The transpose of `_along_rows`: every fourth column by itself, tile t covers the columns 4t - 1 to 4t + 4. In a workspace."""
    near, far, made = (_workspace(name, six.dtype, 4, *six.shape[1:]) for name in ("near", "far", "columns"))
    torch.add(six[2], six[3], out=far[0])
    torch.sub(six[2], six[3], out=far[1])
    torch.add(six[4], six[5], out=near[0]).sub_(six[1], alpha=FAR**2)
    torch.sub(six[4], six[5], out=near[1])
    torch.add(six[0], near[1], alpha=1 / FAR, out=near[2])
    torch.mul(near[0][:, :, 0], -(NEAR**2), out=made[0][:, :, 0])
    torch.sub(six[1][:, :, :-1], near[0][:, :, 1:], alpha=NEAR**2, out=made[0][:, :, 1:])
    made[0].sub_(far[0], alpha=FAR**2)
    torch.add(near[0], far[0], out=made[2]).sub_(six[1], alpha=NEAR**2)
    torch.add(near[2], far[1], alpha=1 / NEAR, out=made[3])
    made[3][:, :, :-1].add_(six[0][:, :, 1:], alpha=(NEAR * FAR) ** 2)
    torch.add(six[0], far[1], alpha=1 / NEAR, out=made[1]).mul_(-(FAR**2)).sub_(near[2], alpha=NEAR**2)
    return made
