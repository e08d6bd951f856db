"""Pictures in Parquet files of the Hugging Face schema: a struct of bytes, and a class label."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from mint.errors import InputError, first_line

# Were fewer kept, threads that each decode from their own group would drop one another's.
_GROUPS_IN_USE = os.cpu_count() or 1


class ParquetPictures:
    """The pictures of several files one after another, opened by row from several threads.

    They are read by the row group, and the last groups are kept. Rows in random order from files
    that are larger than what is kept read a whole group for almost every picture: there, a folder
    of images is faster.

    Attributes:
        labels: (n,) int64.
    """

    def __init__(self, paths: Sequence[Path], kept_bytes: int) -> None:
        """Read the labels.

        Args:
            paths: of the files.
            kept_bytes: size of the row groups that are kept; one for every core is, whatever
                the size.

        Raises:
            InputError: a file cannot be read, or has not one column of images and one of labels.
        """
        self._files = [_File(path) for path in paths]
        self.labels = np.concatenate([file.labels for file in self._files])
        if not len(self.labels):
            raise InputError(f"{paths[0]}: holds no rows")
        self._groups = [(file, group) for file in self._files for group in range(file.groups)]
        self._starts = np.concatenate([[0], np.cumsum([f.rows(g) for f, g in self._groups])])
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        for file in self._files:
            if row < len(file.labels):
                break
            row -= len(file.labels)
        return f"{file.path}, row {row}"

    def open(self, row: int) -> Image.Image:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        content = self._read(group)[row - int(self._starts[group])]["bytes"]
        if not content.is_valid:
            raise InputError(f"{self.name(row)}: holds no image")
        return Image.open(BytesIO(content.as_buffer()))

    def _read(self, group: int) -> Any:
        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
        file, number = self._groups[group]
        pictures = file.pictures(number)
        with self._lock:
            self._kept[group] = pictures
            while len(self._kept) > _GROUPS_IN_USE and self._size() > self._kept_bytes:
                self._kept.popitem(last=False)
        return pictures

    def _size(self) -> int:
        return sum(pictures.nbytes for pictures in self._kept.values())


class _File:
    """One file: its labels, and its pictures by row group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self._metadata = file.metadata
            self._pictures = self._only(file.schema_arrow, "structs of image bytes", _has_bytes)
            column = self._only(file.schema_arrow, "integer labels", pa.types.is_integer)
            labels = file.read(columns=[column]).column(0)
        if labels.null_count:
            raise InputError(f"{path}: column {column} has rows without a label")
        self.labels: NDArray[np.int64] = labels.to_numpy().astype(np.int64)

    @property
    def groups(self) -> int:
        return int(self._metadata.num_row_groups)

    def rows(self, group: int) -> int:
        return int(self._metadata.row_group(group).num_rows)

    def pictures(self, group: int) -> Any:
        with self._opened(self._metadata) as file:
            return file.read_row_group(group, columns=[self._pictures]).column(0)

    @contextmanager
    def _opened(self, metadata: Any = None) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self.path, metadata=metadata) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            detail = first_line(error)
            raise InputError(f"{self.path}: cannot be read as Parquet ({detail})") from error

    def _only(self, schema: Any, what: str, fits: Callable[[Any], bool]) -> str:
        names = [field.name for field in schema if fits(field.type)]
        if len(names) != 1:
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise InputError(f"{self.path}: must have one column of {what}; its columns: {found}")
        return str(names[0])


def _has_bytes(kind: Any) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return bool(pa.types.is_binary(content) or pa.types.is_large_binary(content))
