"""Images in Parquet files of Hugging Face's schema: a struct of image bytes, and a class label."""

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mint.data.images import EncodedImages, open_image
from mint.errors import InputError, first_line


def open_parquet(paths: Sequence[Path], kept_bytes: int) -> EncodedImages:
    """Return the images of several files in a row.

    Files are read by row group. The groups used last stay in memory: so many bytes, and at least
    one group for each core. Random access to files that exceed this memory reads a whole group for
    almost every image: a folder of images is then faster.

    Raises:
        InputError: a file cannot be read, or lacks a single column of images or of labels.
    """
    groups, labels, starts, largest = [], [], [0], 1
    for path in paths:
        with _opened(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            image_column = _only_column(path, schema, "structs of image bytes", _has_bytes)
            label_column = _only_column(path, schema, "integer labels", pa.types.is_integer)
            names = _class_names(schema, label_column)
            labels.append(file.read(columns=[label_column], use_threads=False).column(0))
        if labels[-1].null_count:
            raise InputError(f"{path}: column {label_column} must have a label in every row")
        file_start = starts[-1]
        for number in range(metadata.num_row_groups):
            groups.append((path, metadata, image_column, number, file_start))
            starts.append(starts[-1] + metadata.row_group(number).num_rows)
            largest = max(largest, metadata.row_group(number).total_byte_size)
    if not starts[-1]:
        raise InputError(f"{paths[0]}: must hold at least one row")

    # With fewer groups, threads that decode from different groups would evict each other's.
    @lru_cache(max(os.cpu_count() or 1, kept_bytes // largest))
    def images_of(group: int) -> Any:
        path, metadata, column, number, _ = groups[group]
        with _opened(path, metadata) as file:
            return file.read_row_group(number, columns=[column], use_threads=False).column(0)

    def group_of(row: int) -> int:
        return bisect_right(starts, row) - 1

    def name(row: int) -> str:
        path, *_, file_start = groups[group_of(row)]
        return f"{path}, row {row - file_start}"

    def open_row(row: int) -> Image.Image:
        group = group_of(row)
        content = images_of(group)[row - starts[group]]["bytes"]
        if not content.is_valid:
            raise InputError(f"{name(row)}: holds no image")
        return open_image(BytesIO(content.as_buffer()))

    all_labels = np.concatenate([column.to_numpy().astype(np.int64) for column in labels])
    return EncodedImages(all_labels, open_row, name, class_names=names)


@contextmanager
def _opened(path: Path, metadata: Any = None) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, metadata=metadata) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({first_line(error)})") from error


def _class_names(schema: Any, label_column: str) -> Sequence[str]:
    """Return the names that Hugging Face's library writes beside the schema; () without any."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label_column]["names"]]
    except (TypeError, KeyError, ValueError):
        return ()


def _only_column(path: Path, schema: Any, content: str, matches: Callable[[Any], bool]) -> str:
    names = [field.name for field in schema if matches(field.type)]
    if len(names) != 1:
        found = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{path}: must have one column of {content}, but has {found}")
    return str(names[0])


def _has_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_struct(kind)
        and kind.get_field_index("bytes") >= 0
        and kind.field("bytes").type in (pa.binary(), pa.large_binary())
    )
