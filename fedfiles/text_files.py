"""What readers of all formats share: errors, names of columns, and opening a file of text.

Mistakes are a :class:`FileError` with the file and the row; each floor above gives it the type of
its own errors with :func:`raised_as`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from fedlora.errors import FieldError

__all__ = [
    "SAVED", "FileError", "check_single", "clean_names", "file_error", "format_of", "is_table",
    "not_text", "open_text", "raised_as", "reading_text", "shown", "unreadable",
]  # fmt: skip

# The format of a folder written by Dataset.save_to_disk.
SAVED = "save_to_disk"
_TEXT = "Use a list of JSON objects (.json), or one JSON object a line (.jsonl)"
# How files begin that are no text, whatever they are called; what they are, and what to do.
_OTHERS = {
    codecs.BOM_UTF16_LE: ("it is in UTF-16", "Save the file as UTF-8"),
    codecs.BOM_UTF16_BE: ("it is in UTF-16", "Save the file as UTF-8"),
    b"PAR1": ("it is Parquet", "Give it the suffix .parquet"),
    b"PK\x03\x04": ("it is a zip file, as those of Excel", "Unpack it, or save the sheet as CSV"),
    b"version https://git-lfs": (
        "it is a pointer of Git LFS",
        "Fetch what it is for: git lfs pull",
    ),
}
# JSON can hold one half of a pair that stands for a character; no tokenizer takes it.
_HALF = re.compile("[\\ud800-\\udfff]")
_CSV = "Use CSV with a header line and commas between the fields"


class FileError(FieldError):
    """A file cannot be used; ``value`` is its path."""


@contextmanager
def raised_as(kind: type[FieldError], field: str = "") -> Iterator[None]:
    """Errors of files as errors of another type, that of the floor which reads them.

    Parameters
    ----------
    kind : type
        The type.
    field : str
        The key that says where the files are, if it is not ``data.type``.
    """
    try:
        yield
    except FileError as error:
        raise kind(field or error.field, error.value, error.problem, error.remedy) from error


def file_error(file: Path | str, problem: str, remedy: str) -> FileError:
    """What is wrong with a file, and what to do about it."""
    return FileError("data.type", str(file), problem, remedy)


def unreadable(file: Path, problem: str, remedy: str = "") -> FileError:
    """The error for a file that is damaged or in another format."""
    usual = _CSV if is_table(file) else _TEXT
    return file_error(file, f"the file cannot be read ({problem})", remedy or usual)


def format_of(file: Path) -> str:
    """The suffix that tells how to read a file, in small letters, below that of a compression;
    :data:`SAVED` for a folder.
    """
    if file.is_dir():
        return SAVED
    name = Path(file.name.lower())
    return Path(name.stem).suffix if name.suffix == ".gz" else name.suffix


def is_table(file: Path) -> bool:
    """Whether a file is text in columns, with a header line."""
    return format_of(file) in (".csv", ".tsv")


@contextmanager
def reading_text(file: Path, remedy: str = "") -> Iterator[None]:
    """Say which file cannot be read as text, and why.

    Parameters
    ----------
    file : path
        What is read in the block.
    remedy : str
        What to do about it; by default, which formats there are.

    Raises
    ------
    FileError
        It is damaged, in another format, or not in UTF-8.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise unreadable(file, f"{error}", "Save the file as UTF-8") from error
    # A gzip file that breaks off is an EOFError, one with damaged content a zlib.error.
    except (
        csv.Error, json.JSONDecodeError, RecursionError, gzip.BadGzipFile, EOFError, zlib.error,
    ) as error:  # fmt: skip
        raise unreadable(file, f"{error}", remedy) from error


@contextmanager
def open_text(file: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file of text, compressed by gzip or not; ``newline`` as for :func:`open`."""
    with file.open("rb") as raw:
        opener: Any = gzip.open if raw.read(2) == b"\x1f\x8b" else open
    with reading_text(file):
        _refuse_others(file, opener)
        # Spreadsheets put a byte order mark first.
        with opener(file, "rt", encoding="utf-8-sig", newline=newline) as stream:
            yield stream


def _refuse_others(file: Path, opener: Any) -> None:
    """Refuse what its first bytes tell is another kind of file."""
    with opener(file, "rb") as stream:
        head = stream.read(24)
    for begin, (kind, remedy) in _OTHERS.items():
        if head.startswith(begin):
            raise unreadable(file, kind, remedy)
    if b"\0" in head[:4]:
        raise unreadable(file, *_OTHERS[codecs.BOM_UTF16_LE])


def clean_names(names: Iterable[Any]) -> list[str]:
    """Names of columns without spaces around them, in small letters where that leaves no two
    alike: `` Label`` is ``label``, but ``Text`` beside ``text`` stays.
    """
    bare = [str(name).strip().strip("\ufeff").strip() for name in names]
    small = [name.casefold() for name in bare]
    return [low if small.count(low) == 1 else name for name, low in zip(bare, small, strict=True)]


def check_single(
    file: Path | str, names: Sequence[str], used: Collection[str] | None = None, where: str = ""
) -> None:
    """Refuse two columns of one name but for capital letters, of those that are used (``None``: of
    any).

    Raises
    ------
    FileError
        Only one of them could be read.
    """
    small = [name.casefold() for name in names]
    for name in dict.fromkeys(names):
        places = [str(i) for i, other in enumerate(small, start=1) if other == name.casefold()]
        if name and len(places) > 1 and (used is None or name in used):
            raise file_error(
                file,
                f"{where}{len(places)} columns are called {name} (columns {', '.join(places)})",
                "Keep one of them, or give the others another name",
            )


def not_text(value: Any) -> str:
    """What a value is that is neither a whole text nor a number; empty for these."""
    if isinstance(value, str | int | float | Decimal):
        return "a text with half of a surrogate pair" if _HALF.search(str(value)) else ""
    kinds: dict[type, str] = {dict: "an object", list: "a list", bytes: "bytes"}
    return f"{kinds.get(type(value), f'a {type(value).__name__}')}, not a text"


def shown(names: Iterable[str], length: int = 40, most: int = 8) -> str:
    """Names in a list, long ones cut: they may be the text of a row."""
    every = [name if len(name) <= length else f"{name[:length]}..." for name in names]
    return ", ".join([*every[:most], *(["..."] if len(every) > most else [])])
