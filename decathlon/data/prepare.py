"""From official files to a store."""

from collections.abc import Iterable
from pathlib import Path

from decathlon.data import official
from decathlon.data.decode import decode
from decathlon.data.problems import Problem, summary
from decathlon.data.store import FORMAT, MARKER, SPLITS
from decathlon.data.writer import SplitWriter
from decathlon.specs import choose_domains, official_domains
from mtan_core.errors import UserError
from mtan_core.files import replacing, write_json


def prepare(source: Path, store: Path, domains: str | Iterable[str] | None = None) -> None:
    """Write the store of an unpacked official root."""
    present = [name for name in official_domains() if (source / "data" / name).is_dir()]
    chosen = choose_domains(domains, present, str(source))
    for name in chosen:
        if not (store / name).exists():
            with replacing(store / name) as folder:
                _prepare_domain(source, folder, name)
    write_json(store / MARKER, {"format": FORMAT, "domains": {name: list(SPLITS) for name in chosen}})


def _prepare_domain(source: Path, folder: Path, name: str) -> None:
    problems: list[Problem] = []
    texts = {}
    for split in SPLITS:
        file = official.file_names(name, split)[0]
        texts[split] = file, (source / "annotations" / file).read_bytes()
    listing = official.read_listing(name, texts, problems)
    if problems or listing is None:
        raise UserError(f"{source} has problems:\n{summary(problems)}")
    spec = official_domains()[name].spec(listing.class_names, source=listing.source)
    folder.mkdir()
    for split, rows in listing.splits.items():
        metadata = {
            "format": FORMAT,
            "spec": spec.to_dict(),
            "split": split,
            "source": listing.source,
            "skipped": 0,
            "resplit": None,
        }
        writer = SplitWriter(folder / f"{split}.arrow", metadata)
        for row, file in enumerate(rows.files):
            label = None if split == "test" else int(rows.labels[row])
            writer.append(int(rows.image_ids[row]), label, decode((source / file).read_bytes()))
        writer.close(metadata)
