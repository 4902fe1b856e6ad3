"""A network's answers to a domain's images: accuracy from counts, predictions, statistics made anew."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from decathlon.batches import DomainImages, View
from mtan_core.errors import UserError
from mtan_core.metrics import Tally
from mtan_core.network import AttentionNetwork
from mtan_core.parallel import ALONE, Group
from mtan_core.reestimate import reestimate
from mtan_core.step import Precision, autocast

CHUNK = 100  # images per forward pass


@dataclass(frozen=True)
class Answers:
    """What a network said of a split: sums, and a confusion matrix (rows: true class, columns: answer)."""

    tally: Tally
    confusion: Int[np.ndarray, "classes classes"]


@torch.inference_mode()
def evaluate_domain(
    network: AttentionNetwork,
    domain: str,
    images: DomainImages,
    precision: Precision = "fp32",
    chunk: int = CHUNK,
    group: Group = ALONE,
) -> Answers:
    """Accuracy, loss and confusions with the statistics that the network holds; nothing is random.

    The processes of a group take the chunks in turn, and add up what they counted. Raises UserError for a split without labels.
    """
    labels = images.split.labels
    if labels is None:
        raise UserError(f"{domain}: expected a labelled split, found {images.split.split}.")
    tally = Tally()
    classes = images.split.spec.classes
    confusion = np.zeros((classes, classes), np.int64)
    for places, logits in answers(network, domain, images, precision, chunk, group=group):
        truth = torch.from_numpy(labels[places]).to(logits.device)
        answer = logits.argmax(1)
        tally.add(int((answer == truth).sum()), len(places), F.cross_entropy(logits.double(), truth).item())
        confusion += confusions(labels[places], answer.cpu().numpy(), classes)
    if group.size > 1:
        tally, confusion = _added_up(tally, confusion, group, images.device)
    if tally.seen != len(images.split):
        raise RuntimeError(f"{domain}: {tally.seen} images seen of {len(images.split)}")
    return Answers(tally, confusion)


def confusions(
    truth: Int[np.ndarray, " images"], answers: Int[np.ndarray, " images"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How often each class (rows) was taken for each (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, answers), 1)
    return counts


def _added_up(
    tally: Tally, confusion: np.ndarray, group: Group, device: torch.device
) -> tuple[Tally, Int[np.ndarray, "classes classes"]]:
    """Counts and losses of all processes."""
    sums = torch.tensor([tally.loss, tally.step_losses], dtype=torch.float64, device=device)
    loss, step_losses = group.total(sums).tolist()
    correct, seen, steps = group.total(torch.tensor([tally.correct, tally.seen, tally.steps], device=device)).tolist()
    counted = group.total(torch.from_numpy(confusion).to(device)).cpu().numpy()
    return Tally(correct, seen, loss, steps, step_losses), counted


@torch.inference_mode()
def predict_domain(
    network: AttentionNetwork,
    domain: str,
    images: DomainImages,
    precision: Precision = "fp32",
    views: Iterable[View] | None = None,
) -> Int[np.ndarray, " images"]:
    """The predicted label of every image; with `views`, by the mean of their probabilities."""
    total = np.zeros((len(images.split), images.split.spec.classes), np.float32)
    chosen: list[View | None] = [*views] if views else [None]
    for view in chosen:
        for places, logits in answers(network, domain, images, precision, CHUNK, view):
            total[places] += logits.softmax(1).cpu().numpy()
    return total.argmax(1)


def answers(
    network: AttentionNetwork,
    domain: str,
    images: DomainImages,
    precision: Precision,
    chunk: int,
    view: View | None = None,
    group: Group = ALONE,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Places and fp32 logits, chunk by chunk, in evaluation mode; of a group's chunks, those of this process."""
    was_training = network.training
    network.eval()
    try:
        for places in islice(images.chunks(chunk), group.rank, None, group.size):
            with autocast(images.device, precision):
                logits = network(images.evaluation(places, view), domain)
            yield places, logits.float()
    finally:
        network.train(was_training)


def reestimate_domain(
    network: AttentionNetwork, domain: str, images: DomainImages, precision: Precision = "fp32"
) -> None:
    """Make a domain's batch-norm statistics anew from a split: no augmentation, fixed order, no weight changed.

    Images are dealt to the batches like cards, since files are sorted by class and statistics need a mixture.
    """
    batches = max(1, len(images.split) // CHUNK)
    with autocast(images.device, precision):
        reestimate(
            network, domain, (images.evaluation(np.arange(i, len(images.split), batches)) for i in range(batches))
        )
