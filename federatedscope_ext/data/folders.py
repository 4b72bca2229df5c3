"""Where below ``data.root`` the files of a task are."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from federatedscope_ext.data.glue_tsv import FOLDERS, original_files
from federatedscope_ext.data.splits import split_of_files
from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tasks import TextTask
from fedfiles.readers import FORMATS, FileError, called, format_of, saved_splits, shown

__all__ = ["content", "find_files", "task_folder"]

logger = logging.getLogger(__name__)


def find_files(folder: Path, split: str) -> list[Path]:
    """Files of a split: ``SPLIT.parquet`` (.jsonl, .json, .csv, .tsv, text also compressed), the
    shards ``SPLIT-*.parquet``, or ``SPLIT`` of ``save_to_disk``. Validation rows may also be
    ``dev``, as in GLUE's own files, ``val`` or ``valid``.

    Raises
    ------
    ExtensionError
        Some shards are not there: a part of the rows would pass for all. Or there are two files:
        one of them would be left out.
    """
    names = called(split)
    found = [
        file
        for name in names
        for file in sorted(folder.glob(f"{name}.*"))
        if _stem(file) == name and file.is_file()
    ]
    found += [part for name, part in saved_splits(folder).items() if name in names]
    shards = [file for name in names for file in _shards(folder, name)]
    if len(found) + bool(shards) > 1:
        names_there = [file.name for file in found] + [file.name for file in shards[:1]]
        raise ExtensionError(
            "data.root",
            str(folder),
            f"the {split} split is there more than once: {shown(names_there)}",
            "Keep one of them there, or give another data.root",
        )
    return found or shards


def _stem(file: Path) -> str:
    """A name without what says the format; empty for other formats."""
    name = file.name[:-3] if file.name.lower().endswith(".gz") else file.name
    return Path(name).stem if format_of(file) in FORMATS else ""


def _shards(folder: Path, split: str) -> list[Path]:
    """``SPLIT-*-of-*.parquet``, or in another format, which have to be those of one whole."""
    files = sorted(file for file in folder.glob(f"{split}-*-of-*") if _stem(file))
    numbers: dict[int, list[int]] = {}
    for file in files:
        # A name may end with a hash of the content, as in older data sets of the hub.
        found = re.fullmatch(r"-(\d+)-of-(\d+)(-\w+)?", _stem(file)[len(split) :])
        if found:
            numbers.setdefault(int(found[2]), []).append(int(found[1]))
    whole = [sorted(there) == list(range(count)) for count, there in numbers.items()]
    if len(whole) > 1 or not all(whole):
        raise ExtensionError(
            "data.root",
            str(folder),
            f"the shards of the {split} split are not those of one whole: "
            f"{shown(file.name for file in files)}",
            f"Put all of {split}-00000-of-N.parquet to the last there, and no others",
        )
    return files


def task_folder(
    root: Path, task: TextTask, splits: Sequence[str], above: Sequence[str]
) -> Path | str:
    """The folder that has a task's splits, or a part of a sentence on what is there instead.

    Parameters
    ----------
    root : path
        ``data.root``.
    task : TextTask
        The task.
    splits : sequence of str
        The splits that are needed; a folder of the task's name needs one of them only.
    above : sequence of str
        Names of the folder above the task's own.
    """
    instead = []
    named = _named(root, task, above)
    for folder in filter(Path.is_dir, named):
        if any(find_files(folder, split) for split in splits):
            return folder
        instead.append(f"{folder} has no {' or '.join(splits)} split, only {content(folder)}")
    # data.root may be a data set of the hub itself, or the folder of its files. Any task's files
    # could be there: they have to have this one's splits and columns.
    for folder in (root / "data", root):
        misfit = _misfit(folder, task, splits)
        if misfit == "":
            logger.info("%s: from %s", task.name, folder)
            return folder
        instead += [misfit] if misfit else []
    there = f"only {content(root)}" if root.is_dir() else "there is no such folder"
    return "; ".join(instead) or f"no {named[0]}; {there}"


def content(folder: Path) -> str:
    """What a folder holds, as text."""
    there = sorted(f"{file.name}/" if file.is_dir() else file.name for file in folder.iterdir())
    return shown(there) or "nothing"


def _named(root: Path, task: TextTask, above: Sequence[str]) -> list[Path]:
    """Folders with the name of the task, in the order of search."""
    names = (task.name, FOLDERS.get(task.name, task.name.upper()))
    tops = [top / folder for top in (root, root / "data") for folder in (*above, "")]
    own = [top / name for top in tops for name in dict.fromkeys(names)]
    # What a data set of the hub has as folder of its files.
    return own + [folder / inner for folder in own for inner in ("data", task.name)]


def _misfit(folder: Path, task: TextTask, splits: Sequence[str]) -> str | None:
    """Why the files of a folder are not the task's: empty where they are, ``None`` without any."""
    wanted = (*task.sentence_keys, "label")
    try:
        files = {split: found for split in splits if (found := find_files(folder, split))}
        for found in files.values():
            split = split_of_files(found, original_files(task))
            if not {*wanted} <= {*split.columns}:
                there = shown(split.columns) or "none"
                return f"{split.name} has the columns {there}, not {', '.join(wanted)}"
    except (FileError, ExtensionError) as error:
        return f"{error.value}: {error.problem}"
    if not files:
        return None
    missing = [split for split in splits if split not in files]
    return f"{folder} has no {' and no '.join(missing)} split" if missing else ""
