"""Rows of CSV and TSV files: what is between the fields is found in the first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fedfiles.text_files import check_single, clean_names, file_error, format_of, open_text

__all__ = ["Dialect", "dialect_of", "first_line", "table_rows"]

# The csv module refuses longer fields than 131,072 characters. As much as fits its C long anywhere.
LONGEST_FIELD = 2**31 - 1
# A last line of our own. When it comes back as a part of a row, a quotation mark was left open.
_END = "\ufffe end of the file \ufffe"
# Lines in which every row has to have as many fields as the header.
_SAMPLE = 40
# A first line with which Excel says what is between the fields.
_GIVEN = re.compile(r'"?sep=.?"?\s*', re.IGNORECASE)
# A mark within a quoted field that does not end it, as a second mark before it would say too.
_ESCAPED = re.compile(r'(?:^|[,;\t|])[ ]?"[^"]*\\"[^",;\t|\r\n]')
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


@dataclass(frozen=True)
class Dialect:
    """How the lines of a table are divided.

    Attributes
    ----------
    separator : str
        The character between fields.
    quoted : bool
        Whether ``"`` around a field is none of its text, so that the separator or a line break may
        be in it.
    spaced : bool
        Whether a space follows every separator.
    escaped : bool
        Whether a mark after a backslash is one of the text, where doubled ones are usual.
    """

    separator: str = ","
    quoted: bool = True
    spaced: bool = False
    escaped: bool = False

    @property
    def name(self) -> str:
        """The separator in a word."""
        return _SEPARATORS[self.separator]

    def __str__(self) -> str:
        marks = "" if self.quoted else "; quotation marks are a part of the text"
        marks += '; \\" is a quotation mark of the text' if self.escaped else ""
        return f"{self.name}s are between the fields{marks}"


def dialect_of(file: Path, quoted: bool | None = None) -> Dialect:
    """How a file is divided: by the first of ``, ; tab |`` (``.tsv``: tab first) that gives all of
    the first lines the same number of fields, else by the one that gives the first line most.

    Parameters
    ----------
    file : path
        CSV or TSV.
    quoted : bool, optional
        False where the file is known to be divided by tabs and without quotation; found out by
        default.
    """
    if quoted is False:
        return Dialect("\t", False)
    with _open(file, "") as stream:
        lines = list(islice(stream, _SAMPLE))
        escaped = any('\\"' in line and _ESCAPED.search(line) for line in chain(lines, stream))
    usual = "\t" if format_of(file) == ".tsv" else ","
    order = sorted(_SEPARATORS, key=lambda separator: separator != usual)
    rows = {s: [row for row in _parsed(lines, Dialect(s, escaped=escaped)) if row] or [[]]
            for s in order}  # fmt: skip
    # A text may go on after the sample: its last row is not counted.
    even = [s for s, (first, *others) in rows.items()
            if len(first) > 1 and all(len(row) == len(first) for row in others[:-1])]  # fmt: skip
    separator = even[0] if even else max(order, key=lambda s: len(rows[s][0]))
    if separator == "\t":
        quoted = not _has_bare_marks(file)
        return Dialect(separator, quoted, escaped=quoted and escaped)
    header = rows[separator][0]
    spaced = len(header) > 1 and all(name.startswith(" ") for name in header[1:])
    return Dialect(separator, spaced=spaced, escaped=escaped)


@contextmanager
def _open(file: Path, newline: str) -> Iterator[Iterable[str]]:
    """The lines of a table; one that only says what is between the fields is blank."""
    with open_text(file, newline) as stream:
        first = stream.readline()
        yield chain(["\n" if _GIVEN.fullmatch(first) else first], stream)


def _has_bare_marks(file: Path) -> bool:
    """Whether quotation marks of a file with tabs are a part of the text: every line has as many
    tabs as the first, and a field begins with a mark without being quoted as a whole.
    """
    found, tabs = False, None
    for line in _plain(file):
        if _is_blank(line):
            continue
        tabs = len(line) if tabs is None else tabs
        if len(line) != tabs:
            return False
        found = found or any(_is_bare(field) for field in line)
    return found


def _is_blank(fields: Sequence[str]) -> bool:
    return len(fields) < 2 and not "".join(fields).strip()


def _is_bare(field: str) -> bool:
    if not field.startswith('"'):
        return False
    whole = len(field) > 1 and field.endswith('"')
    return not whole or '"' in field[1:-1].replace('""', "")


def first_line(file: Path, dialect: Dialect) -> list[str]:
    """The fields of the first line."""
    return next(_lines(file, dialect), (0, []))[1]


def table_rows(
    file: Path,
    columns: Collection[str] | None = None,
    headerless: Callable[[Sequence[str]], bool] | None = None,
    quoted: bool | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows with as many fields as the first line has.

    Parameters
    ----------
    file, columns, headerless, quoted
        As for :func:`fedfiles.readers.read_rows`.

    Raises
    ------
    FileError
        A row has another number of fields, a quotation mark is left open, or two of ``columns``
        have one name.
    """
    dialect = dialect_of(file, quoted)
    lines = _lines(file, dialect)
    line, names = next(lines, (0, []))
    first = "header"
    if headerless is not None and headerless(names):
        lines, first = chain([(line, names)], lines), "first line"
        names = [str(i + 1) for i in range(len(names))]
    names = clean_names(names)
    check_single(file, names, columns)
    for row, (line, fields) in enumerate(lines, start=1):
        lacking = len(names) - len(fields)
        if lacking < 0 or (lacking and quoted is not False):
            # A comma in a text that is not quoted would make a piece of the text the label.
            remedy = f"Take {dialect.name}s out of the texts"
            if lacking > 0:
                remedy = "Give every row all fields; a text with a line break stands between "
                remedy += "quotation marks"
            elif dialect.quoted:
                remedy = f"Write a text that has a {dialect.name} in it between quotation marks: "
                remedy += f'"so{dialect.separator} so"{dialect.separator}1'
            problem = f"row {row} (line {line}) has {len(fields)} fields, the {first} has "
            raise file_error(file, f"{problem}{len(names)}", remedy)
        yield dict(zip(names, [*fields, *[None] * lacking], strict=True))


def _lines(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file that are not blank: the number of each and its fields."""
    if not dialect.quoted:
        plain = enumerate(_plain(file), start=1)
        yield from ((i, line) for i, line in plain if not _is_blank(line))
        return
    with _open(file, "") as stream:
        reader = _reader(chain(stream, [_END]), dialect)
        first = 1
        while (fields := _next(reader) or []) != [_END]:
            if fields and fields[-1].endswith(_END):
                # All rows up to the end of the file would pass for one text.
                raise file_error(
                    file,
                    f'in line {first} a text begins with a quotation mark (") and never ends',
                    "Close it with another one; within a text write two of them",
                )
            if not _is_blank(fields):
                yield reader.line_num, fields
            first = reader.line_num + 1


def _plain(file: Path) -> Iterator[list[str]]:
    """The fields of each line of a file with tabs and without quotation."""
    with _open(file, "\n") as stream:
        for line in stream:
            yield line.rstrip("\r\n").split("\t")


def _parsed(lines: Sequence[str], dialect: Dialect) -> Iterator[list[str]]:
    reader = _reader(lines, dialect)
    while (fields := _next(reader)) is not None:
        yield fields


def _reader(lines: Iterable[str], dialect: Dialect) -> Any:
    if dialect.escaped:
        # Written as the csv module reads it; other backslashes are a part of the text.
        lines = (line.replace('\\"', '""') for line in lines)
    return csv.reader(lines, delimiter=dialect.separator, skipinitialspace=dialect.spaced)


def _next(reader: Any) -> list[str] | None:
    """The next line. The limit is one of the whole process, so it is put back each time."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)
