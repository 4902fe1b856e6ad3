"""One domain's network alone: the pool, that domain's masks and head, in evaluation mode, as a plain torch module."""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from decathlon.specs import DomainSpec
from mtan_core.convs import OwnConv, SharedConv
from mtan_core.ladder import AttentionStage, Mask
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED, OwnNorm, TaskNorm
from mtan_core.pools import Tap
from mtan_core.segments import Segments


class SingleNetwork(nn.Module):
    """Does what `network(images, domain)` does in evaluation mode, from stored pixels to probabilities.

    It is made of torch's own convolutions and batch norms, so that exporters can fold what lies one after the other. What a
    method adds to a shared convolution for the domain is made one with it. The network given is not changed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: AttentionNetwork, spec: DomainSpec) -> None:
        super().__init__()
        self.segments = Segments((spec.name,), (1,))  # whatever reads sizes was replaced: any batch will do
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32) * 255)
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32) * 255)
        self.pool = _plain(network.pool, spec.name)
        self.stages = nn.ModuleList()
        if network.ladder is not None:
            self.stages.extend(SingleStage(stage, spec.name) for stage in network.ladder.stages)  # type: ignore[arg-type]
        self.head = copy.deepcopy(network.heads[spec.name])
        self.window = 8 if network.head_pool == "8x8" else None
        self.eval().requires_grad_(False)

    def forward(self, images: UInt8[Tensor, "batch size size 3"]) -> Float[Tensor, "batch classes"]:
        """Probabilities of RGB images."""
        pixels = (images.float() - self.mean) / self.std
        taps = self.pool(pixels.permute(0, 3, 1, 2), self.segments)
        carried: Tensor | None = None
        for stage, tap in zip(self.stages, taps, strict=False):  # no stage where a method has no ladder
            carried = stage(tap, carried)
        features = taps[-1].features if carried is None else carried
        return self.head(features[:, :, : self.window, : self.window].mean((2, 3))).softmax(1)


class SingleStage(nn.Module):
    """`AttentionStage` for one task."""

    def __init__(self, stage: AttentionStage, task: str) -> None:
        super().__init__()
        self.shrink, self.pooled = stage.shrink, stage.pooled
        self.activate = stage.activate
        self.mask: nn.Module | None = None
        if stage.activation != "ones":
            own: Mask = stage.masks[task]  # type: ignore[assignment]
            norms = [_batch_norm(norm, task) for norm in (own.norm1, own.norm2)]
            self.mask = nn.Sequential(copy.deepcopy(own.conv1), norms[0], nn.ReLU(), copy.deepcopy(own.conv2), norms[1])
        self.carry = nn.Sequential(copy.deepcopy(stage.conv), _batch_norm(stage.norm, task), nn.ReLU())

    def forward(self, tap: Tap, carried: Tensor | None) -> Float[Tensor, "batch out h w"]:
        selected = tap.features
        if self.mask is not None:
            seen = tap.gate if carried is None else torch.cat((tap.gate, carried), 1)
            selected = self.activate(self.mask(seen)) * selected
        carried = self.carry(selected)
        return carried if self.shrink == 1 else self.pooled(carried)


class FixedNorm(nn.Module):
    """The batch norm of one task, called as `TaskNorm` is, or as `BatchNorm2d` is in a backbone."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor, segments: Segments | None = None, relu: bool = False) -> Tensor:
        normalised = self.norm(features)
        return normalised.relu() if relu else normalised


def _plain(pool: nn.Module, task: str) -> nn.Module:
    """A copy of a pool for one task alone."""
    pool = copy.deepcopy(pool)
    for parent in list(pool.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, TaskNorm):
                setattr(parent, name, FixedNorm(_batch_norm(child, task)))
            elif isinstance(child, SharedConv | OwnConv) and type(child) is not SharedConv:
                setattr(parent, name, united(child, task))
    return pool


def _batch_norm(norm: TaskNorm | OwnNorm, task: str) -> nn.BatchNorm2d:
    """With the scale and shift and the statistics that hold for the task: its own, or where it has none the shared ones."""
    affine: nn.Module = norm.affine
    statistics: nn.Module = norm.statistics
    if isinstance(norm, TaskNorm):
        affine, statistics = (held[task if task in held else SHARED] for held in (norm.affine, norm.statistics))
    plain = nn.BatchNorm2d(len(affine.weight), norm.eps)  # type: ignore[arg-type]
    state = {**affine.state_dict(), "running_mean": statistics.mean, "running_var": statistics.var}
    plain.load_state_dict(state, strict=False)  # a BatchNorm2d also counts batches
    return plain.eval()


@torch.no_grad()
def united(conv: SharedConv | OwnConv, task: str) -> SharedConv:
    """One plain convolution that does what a convolution and a task's own part do together.

    Its filters are read off: they are the answers to images of a single pixel of 1, its bias the answer to 0.
    """
    like: nn.Conv2d = conv.own[task] if isinstance(conv, OwnConv) else conv  # type: ignore[assignment]
    kernel, stride, padding = like.kernel_size[0], like.stride[0], like.padding[0]
    place = int(padding)  # of an output pixel whose window lies inside the image
    inputs, start = like.in_channels, place * stride - place
    impulses = torch.zeros(inputs * kernel**2 + 1, inputs, start + kernel, start + kernel, dtype=torch.float64)
    impulses[1:, :, start:, start:] = torch.eye(inputs * kernel**2).view(-1, inputs, kernel, kernel)
    answers = copy.deepcopy(conv).double()(impulses, Segments((task,), (len(impulses),)))[:, :, place, place]
    filters = (answers[1:] - answers[0]).view(inputs, kernel, kernel, -1).permute(3, 0, 1, 2)
    made = SharedConv(inputs, like.out_channels, kernel, stride=stride, padding=padding)
    made.weight.copy_(filters)
    assert made.bias is not None
    made.bias.copy_(answers[0])
    return made
