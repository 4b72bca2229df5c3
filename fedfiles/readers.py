"""Rows of Parquet, JSON, JSON lines, CSV and TSV files and of folders of ``save_to_disk``: one
function a format, in the files' order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from fedfiles.tables import dialect_of, first_line, table_rows
from fedfiles.text_files import (
    SAVED,
    FileError,
    check_single,
    clean_names,
    file_error,
    format_of,
    is_table,
    not_text,
    open_text,
    raised_as,
    reading_text,
    shown,
    unreadable,
)

__all__ = [
    "FORMATS", "PIECE", "SAVED", "FileError", "Row", "called", "check_single", "class_names",
    "column_names", "file_error", "format_of", "is_own", "is_table", "not_text", "own_file",
    "own_splits", "places", "raised_as", "read_rows", "reading_parquet", "reading_text",
    "saved_splits", "shown",
]  # fmt: skip

logger = logging.getLogger(__name__)

Row = dict[str, Any]

# What format_of says of files that can be read; text may have ".gz" after it.
FORMATS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
# Rows that are worked on at a time.
PIECE = 2000


def places(root: str, name: str) -> list[Path]:
    """Where the file that ``data.type`` names can be: below ``data.root``, or as it is."""
    path = Path(name).expanduser()
    return [path] if path.is_absolute() else [Path(root).expanduser() / path, path]


def is_own(root: str, name: str) -> bool:
    """Whether ``data.type`` names a file that can be read, or a folder."""
    folders = (place.is_dir() for place in places(root, name))
    return bool(name) and (format_of(Path(name)) in FORMATS or any(folders))


def own_file(root: str, name: str, kind: str) -> Path:
    """A file, or a folder of ``save_to_disk``, that ``data.type`` names, as it is or below
    ``data.root``.

    Raises
    ------
    FileError
        It is in neither place; ``value`` is ``NAME@KIND``.
    """
    candidates = places(root, name)
    for candidate in candidates:
        if candidate.is_file() or saved_splits(candidate):
            return candidate
    folder = next(filter(Path.is_dir, candidates), None)
    if folder is not None:
        raise file_error(
            f"{name}@{kind}",
            f"{folder} is a folder, and none that Dataset.save_to_disk has written",
            f"Name a file in it: {name}/FILE{{{','.join(FORMATS)}}}@{kind}",
        )
    raise file_error(
        f"{name}@{kind}",
        f"there is no file {' or '.join(map(str, candidates))}",
        "Give the path in data.type, or its folder in data.root",
    )


def saved_splits(folder: Path) -> dict[str, Path]:
    """The splits of a folder that ``DatasetDict.save_to_disk`` has written, by name; of one that
    ``Dataset.save_to_disk`` has written that folder, under no name; of others none.
    """
    parts = {"": folder} | {f.name: f for f in sorted(folder.glob("*/"))}
    found = {name: part for name, part in parts.items() if (part / "state.json").is_file()}
    return {"": folder} if "" in found else found


def called(split: str) -> list[str]:
    """Names that a split can have: that of validation rows also others."""
    names = ("validation", "dev", "val", "valid")
    return list(dict.fromkeys(split.replace("validation", name) for name in names))


def own_splits(path: Path) -> dict[str, Path]:
    """An own file as ``train``; of a folder of ``save_to_disk`` the splits ``train``,
    ``validation`` and ``test``, or its only one as ``train``.

    Raises
    ------
    FileError
        The folder has several splits, and none is ``train``, or two are ``validation``.
    """
    parts = saved_splits(path) or {"": path}
    if len(parts) == 1:
        return {"train": next(iter(parts.values()))}
    if "train" not in parts:
        problem = f"the folder has no train split, only {shown(parts)}"
        raise file_error(path, problem, f"Name one of them: {path / next(iter(parts))}")
    splits = ("train", "validation", "test")
    names = {split: [n for n in called(split) if n in parts] for split in splits}
    if len(twice := names["validation"]) > 1:
        problem = f"the validation split is there more than once: {shown(twice)}"
        raise file_error(path, problem, "Keep one of them")
    kept = {split: found[0] for split, found in names.items() if found}
    if len(parts) > len(kept):
        left = shown(name for name in parts if name not in kept.values())
        logger.warning("%s: these splits are not read: %s.", path, left)
    return {split: parts[name] for split, name in kept.items()}


def read_rows(
    file: Path,
    columns: Sequence[str] | None = None,
    headerless: Callable[[Sequence[str]], bool] | None = None,
    quoted: bool | None = None,
) -> Iterator[Row]:
    """The rows of a file, with the names of columns that :func:`column_names` gives.

    Parameters
    ----------
    file : path
        ``.parquet``, ``.csv`` or ``.tsv``; a folder that ``Dataset.save_to_disk`` has written;
        else JSON: a list of objects, or one a line. Text may be compressed (``.gz``).
    columns : sequence of str, optional
        Read these only, where the format can; no two of them may have one name.
    headerless : callable, optional
        Whether the first line of a CSV or TSV file is a row. Its columns are then called 1, 2, ...
    quoted : bool, optional
        False for a TSV file without quotation marks around fields, where rows may lack fields at
        the end; found out by default.

    Raises
    ------
    FileError
        The file is damaged or in another format.
    """
    if format_of(file) == ".parquet":
        yield from _parquet(file, columns)
    elif format_of(file) == SAVED:
        yield from _saved(file, columns)
    elif is_table(file):
        yield from table_rows(file, columns, headerless, quoted)
    else:
        with open_text(file) as stream:
            yield from _named(file, _objects(file, stream), columns)


def column_names(file: Path) -> list[str]:
    """Names of the columns: those of the table, the first line of CSV, of all JSON objects; cleaned
    by :func:`fedfiles.text_files.clean_names`. What is between the fields of CSV is told where it
    is no comma.
    """
    if format_of(file) == ".parquet":
        import pyarrow.parquet

        with reading_parquet(file):
            return clean_names(pyarrow.parquet.read_schema(file).names)
    if format_of(file) == SAVED:
        return clean_names(_dataset(file).column_names)
    if is_table(file):
        dialect = dialect_of(file)
        usual = {".csv": ",", ".tsv": "\t"}[format_of(file)] == dialect.separator
        if not usual or not dialect.quoted or dialect.escaped:
            logger.log(logging.INFO if usual else logging.WARNING, "%s: %s.", file, dialect)
        return clean_names(first_line(file, dialect))
    return list(dict.fromkeys(name for row in read_rows(file, ()) for name in row))


def class_names(file: Path, column: str) -> tuple[str, ...]:
    """Names of the classes of a column that is a ``ClassLabel`` of ``datasets``, in a folder or a
    Parquet file; empty for others.
    """
    features: Any = {}
    if format_of(file) == SAVED:
        features = _dataset(file).features
    elif format_of(file) == ".parquet":
        import pyarrow.parquet

        with reading_parquet(file):
            schema = pyarrow.parquet.read_schema(file)
        if b"huggingface" in (schema.metadata or {}):
            import datasets

            features = datasets.Features.from_arrow_schema(schema)
    named = dict(zip(clean_names(features), features.values(), strict=True))
    return tuple(getattr(named.get(column), "names", None) or ())


@contextmanager
def reading_parquet(
    file: Path, remedy: str = "Copy or download it again, or write it anew", form: str = "Parquet"
) -> Iterator[None]:
    """Say which file cannot be read as Parquet, or another form of Arrow, and why."""
    import pyarrow

    try:
        yield
    # Damaged pages are an OSError, anything else that is no Parquet an ArrowException.
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise file_error(file, f"the file cannot be read as {form} ({error})", remedy) from error


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow.parquet

    with reading_parquet(file), pyarrow.parquet.ParquetFile(file) as table:
        there = table.schema_arrow.names
        names = clean_names(there)
        check_single(file, names, columns)
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise file_error(
                file,
                f"this shard has no column {', '.join(missing)}, which another one has",
                "Give all shards of a split the same columns",
            )
        called = dict(zip(there, names, strict=True))
        wanted = [name for name in there if columns is None or called[name] in columns]
        for piece in table.iter_batches(PIECE, columns=wanted):
            for row in piece.to_pylist():
                yield {called[name]: value for name, value in row.items()}


def _saved(folder: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    dataset = _dataset(folder)
    names = clean_names(dataset.column_names)
    check_single(folder, names, columns)
    wanted = {n: name for n, name in zip(dataset.column_names, names, strict=True)
              if columns is None or name in columns}  # fmt: skip
    for piece in dataset.select_columns([*wanted]).iter(PIECE):
        for values in zip(*piece.values(), strict=True):
            yield dict(zip((wanted[name] for name in piece), values, strict=True))


def _dataset(folder: Path) -> Any:
    """A data set of a folder, giving Python values whatever it was saved to give."""
    import datasets

    with reading_parquet(folder, form="a data set of save_to_disk"):
        try:
            return datasets.load_from_disk(str(folder)).with_format(None)
        except (KeyError, TypeError, ValueError) as error:
            raise OSError(f"{error}") from error


class _Twice(dict[str, Any]):
    """An object of JSON with a key that is there more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Twice(pairs)


def _named(
    file: Path, objects: Iterable[tuple[str, Row]], columns: Sequence[str] | None
) -> Iterator[Row]:
    """Objects with clean names, each of the used ones there once."""
    seen: dict[tuple[str, ...], list[str]] = {}
    for place, row in objects:
        pairs = row.pairs if isinstance(row, _Twice) else row.items()
        keys = tuple(key for key, _ in pairs)
        if keys not in seen:
            seen[keys] = clean_names(keys)
            check_single(file, seen[keys], columns, f"{place}: ")
        yield {name: value for name, (_, value) in zip(seen[keys], pairs, strict=True)}


def _objects(file: Path, stream: TextIO) -> Iterator[tuple[str, Row]]:
    """Objects of JSON: a list of them, or one a line, whatever the suffix says."""
    start = ""
    while not start.strip() and (line := stream.readline()):
        start += line
    if format_of(file) != ".json" and not start.lstrip().startswith("["):
        return _json_lines(file, chain(StringIO(start), stream))
    text = start + stream.read()
    if not text.strip():
        return iter(())
    try:
        return _json(file, json.loads(text, object_pairs_hook=_object))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
    return _json_lines(file, text.split("\n"))


def _json(file: Path, content: Any) -> Iterator[tuple[str, Row]]:
    """Objects of a JSON file, which has to be a list of them."""
    if not isinstance(content, list):
        kind = "one object" if isinstance(content, dict) else "one value"
        remedy = "Write a list of objects, one for each row (pandas: orient='records')"
        raise unreadable(file, f"it holds {kind}, not a list", remedy)
    for number, value in enumerate(content, start=1):
        if not isinstance(value, dict):
            raise unreadable(file, f"item {number} of the list is no JSON object")
        yield f"item {number}", value


def _json_lines(file: Path, stream: Iterable[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            # The parser has seen one line only; the user has to find it among all.
            raise unreadable(file, f"line {number}: {error.msg}, column {error.colno}") from error
        if not isinstance(value, dict):
            raise unreadable(file, f"line {number} is no JSON object")
        yield f"line {number}", value
