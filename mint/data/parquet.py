"""Images in Parquet files of Hugging Face's schema: a struct of image bytes, and a class label."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from mint.data.images import EncodedImages
from mint.errors import InputError, first_line

# With fewer, threads that decode from different row groups would evict each other's.
_MIN_KEPT_GROUPS = os.cpu_count() or 1


class _RowGroup(NamedTuple):
    path: Path
    metadata: Any  # of the file
    column: str  # of images
    number: int
    first_row: int


def open_parquet(paths: Sequence[Path], kept_bytes: int) -> EncodedImages:
    """Return the images of several files in a row.

    Files are read by row group, and the groups used last stay in memory. Random access to files
    that exceed this memory reads a whole group for almost every image: a folder of images is then
    faster.

    Args:
        paths: the files, in order.
        kept_bytes: size of the row groups to keep; one group for each core is always kept.

    Raises:
        InputError: a file cannot be read, or lacks a single column of images or of labels.
    """
    images = _ParquetImages(paths, kept_bytes)
    return EncodedImages(images.labels, images.open, images.name)


class _ParquetImages:
    def __init__(self, paths: Sequence[Path], kept_bytes: int) -> None:
        self._groups: list[_RowGroup] = []
        labels, counts, sizes = [], [0], [1]
        for path in paths:
            with _opened(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
                image_column = _only_column(path, schema, "structs of image bytes", _has_bytes)
                label_column = _only_column(path, schema, "integer labels", pa.types.is_integer)
                labels.append(file.read(columns=[label_column]).column(0))
            if labels[-1].null_count:
                raise InputError(f"{path}: column {label_column} must have a label in every row")
            first_row = 0
            for number in range(metadata.num_row_groups):
                self._groups.append(_RowGroup(path, metadata, image_column, number, first_row))
                counts.append(metadata.row_group(number).num_rows)
                sizes.append(metadata.row_group(number).total_byte_size)
                first_row += counts[-1]
        self.labels: NDArray[np.int64] = np.concatenate(
            [column.to_numpy().astype(np.int64) for column in labels]
        )
        if not len(self.labels):
            raise InputError(f"{paths[0]}: must hold at least one row")
        self._starts = np.cumsum(counts)
        self._read = lru_cache(max(_MIN_KEPT_GROUPS, kept_bytes // max(sizes)))(self._read_images)

    def open(self, row: int) -> Image.Image:
        index, place = self._find(row)
        content = self._read(index)[place]["bytes"]
        if not content.is_valid:
            raise InputError(f"{self.name(row)}: holds no image")
        return Image.open(BytesIO(content.as_buffer()))

    def name(self, row: int) -> str:
        index, place = self._find(row)
        group = self._groups[index]
        return f"{group.path}, row {group.first_row + place}"

    def _find(self, row: int) -> tuple[int, int]:
        """Return the index of a row's group, and the row's place in the group."""
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        return index, row - int(self._starts[index])

    def _read_images(self, index: int) -> Any:
        group = self._groups[index]
        with _opened(group.path, group.metadata) as file:
            return file.read_row_group(group.number, columns=[group.column]).column(0)


@contextmanager
def _opened(path: Path, metadata: Any = None) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, metadata=metadata) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({first_line(error)})") from error


def _only_column(path: Path, schema: Any, content: str, matches: Callable[[Any], bool]) -> str:
    names = [field.name for field in schema if matches(field.type)]
    if len(names) != 1:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{path}: must have one column of {content}, but has {found}")
    return str(names[0])


def _has_bytes(kind: Any) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return bool(pa.types.is_binary(content) or pa.types.is_large_binary(content))
