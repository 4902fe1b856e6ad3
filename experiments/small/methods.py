"""All methods with one budget of images seen.

    python -m experiments.small.methods OFFICIAL_ROOT OUT [--seeds 0,1,2] [--rows mtan,scratch,...] [--set key=value ...]

Every method trains the preset `small` for 20 epochs (57,600 images). What some begin with comes before that and is told
apart: a pool that learnt ImageNet's images alone (14,400 images), `parallel`'s adapters for `parallel-svd`, and the
teachers of `universal`, which are `scratch`.
"""

from collections.abc import Sequence

from experiments.small.table import Row, Table, fill, parser
from mtan_core.methods import methods

EPOCHS = "phases.0.epochs=20"
POOL = "pool of imagenet12"


def rows() -> dict[str, Row]:
    made = {POOL: Row(('method="hard-sharing"', 'domains="imagenet12"', "phases.0.epochs=50"), hidden=True)}
    for name, method in methods().items():
        upon = "parallel" if name == "parallel-svd" else POOL if method.pretrained else None
        made[name] = Row((f'method="{name}"', EPOCHS), upon, "scratch" if method.distilled else None)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__, rows()).parse_args(arguments)
    fill(Table(rows(), options.root, options.out, options.changes), options.seeds, options.rows)


if __name__ == "__main__":
    main()
