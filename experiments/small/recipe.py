"""What the recipe is worth, and what the masks and the norms do in it.

    python -m experiments.small.recipe OFFICIAL_ROOT OUT [--seeds 0,1,2] [--rows ours,...] [--set key=value ...]

Rows: the majority class and a logistic regression on the pixels; our recipe (preset `small`); the same with all masks
fixed to 1; the same with one set of batch norms and one domain after the other (the authors' way, which knows no weight
averaging either), without and with re-estimated statistics. Every run sees the same number of images to within 2 %.
"""

from collections.abc import Sequence

import numpy as np

from decathlon.data.store import Store
from experiments.small.table import Result, Row, Table, fill, parser

ROWS = {
    "ours": Row(),
    "masks fixed to 1": Row(('network.mask_activation="ones"',)),
    # a pass leaves out the rest of each domain that fills no batch: 42 passes see as many images as 40 joint epochs
    "authors' way": Row(
        ('norm="shared"', 'sampling="sequential"', "ema=0", "phases.0.epochs=42"),
        also={"authors' way, not re-estimated": lambda run: run.network.drop_own_statistics()},
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, ROWS).parse_args(arguments)
    table = Table(ROWS, options.root, options.out, options.changes)
    fill(table, options.seeds, options.rows, baselines(table.store))


def baselines(store: Store) -> list[Result]:
    """Validation accuracy of the majority class and of scikit-learn's logistic regression on 72x72 pixels."""
    return [
        {"row": "majority class", "seed": 0, "val": {name: majority(store, name) for name in store.domains}},
        {"row": "logistic regression", "seed": 0, "val": {name: regression(store, name) for name in store.domains}},
    ]


def majority(store: Store, domain: str) -> float:
    """Share of the most frequent training class among the validation images."""
    learnt, asked = (_labels(store, domain, split) for split in ("train", "val"))
    return float((asked == np.bincount(learnt).argmax()).mean())


def regression(store: Store, domain: str) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, labels = zip(*(_pixels(store, domain, split) for split in ("train", "val")), strict=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=2000))
    return float(model.fit(pixels[0], labels[0]).score(pixels[1], labels[1]))


def _labels(store: Store, domain: str, split: str) -> np.ndarray:
    labels = store.split(domain, split).labels
    assert labels is not None
    return labels


def _pixels(store: Store, domain: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from decathlon.batches import DomainImages

    stored = store.split(domain, split)
    images = DomainImages(stored, store.specs[domain].fit, 72, torch.device("cpu"), store.specs[domain])
    return images.evaluation(np.arange(len(stored))).flatten(1).numpy(), _labels(store, domain, split)


if __name__ == "__main__":
    main()
