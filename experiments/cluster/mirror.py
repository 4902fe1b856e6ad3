"""Copies of run folders in a storage that machines without a common disk reach: the latest whole one of each run."""

import shutil
from pathlib import Path

from pyarrow import fs

from experiments.cluster.storage import open_storage
from mtan_core.files import LOCK, replacing

WHOLE = ".whole"  # the mark of a copy that is complete, written last


class Mirror:
    """A run's copies in a folder or at a URI that Arrow can open. They are numbered; older ones go when a newer one is whole."""

    def __init__(self, storage: str, name: str) -> None:
        place = open_storage(storage)
        self.filesystem, self.folder = place.filesystem, f"{place.path}/{name}"

    def exists(self) -> bool:
        """Whether there is a copy that is whole."""
        return bool(self._numbers())

    def push(self, run: Path) -> None:
        """Copy a run's folder as it is now; whoever reads meanwhile gets the copy before."""
        before = self._numbers()
        number = max([0, *before]) + 1
        target = f"{self.folder}/{number}"
        local = fs.LocalFileSystem()
        for file in sorted(path for path in run.rglob("*") if path.is_file() and path.name != LOCK):
            where = f"{target}/{file.relative_to(run).as_posix()}"
            self.filesystem.create_dir(where.rpartition("/")[0], recursive=True)
            fs.copy_files(str(file), where, source_filesystem=local, destination_filesystem=self.filesystem)
        with self.filesystem.open_output_stream(f"{target}{WHOLE}") as stream:
            stream.write(b"")
        for old in before:
            self.filesystem.delete_file(f"{self.folder}/{old}{WHOLE}")
            self.filesystem.delete_dir(f"{self.folder}/{old}")

    def pull(self, run: Path) -> bool:
        """Bring the latest copy to a folder, in the place of what lies there; whether there is one."""
        numbers = self._numbers()
        if not numbers:
            return False
        shutil.rmtree(run, ignore_errors=True)
        with replacing(run) as temporary:
            temporary.mkdir()
            fs.copy_files(
                f"{self.folder}/{max(numbers)}", str(temporary),
                source_filesystem=self.filesystem, destination_filesystem=fs.LocalFileSystem(),
            )  # fmt: skip
        return True

    def _numbers(self) -> list[int]:
        """The copies that are whole."""
        listed = self.filesystem.get_file_info(fs.FileSelector(self.folder, allow_not_found=True))
        return [int(info.base_name.removesuffix(WHOLE)) for info in listed if info.base_name.endswith(WHOLE)]
