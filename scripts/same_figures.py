"""Run the same cases under another revision and this working tree; list what differs.

    python scripts/same_figures.py --against HEAD~3
    python scripts/same_figures.py --against main --only fedsa fedsa_unequal

Each case (``same_cases.py``) is a short run on the built-in miniature. Compared are every figure
of ``metrics.jsonl``, ``eval_results.log`` and ``run.json`` that no clock, machine or folder
decides, all tensors of the server after each round (its checkpoints), and all tensors that a client
holds after each of its training steps and when it is evaluated (``record_tensors.py``). The order
of lines is no figure.

The exit code is 0 where all are the same, 1 where something differs, 2 for a mistake in the call.
The other revision is unpacked into a temporary folder; both run with this interpreter, one thread
and no hub, and share the miniature, which is built once (``FEDERATEDSCOPE_CACHE`` says where).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import same_cases
from same_compare import Comparison, compare, described, read_case

__all__ = ["listed_methods", "main"]

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("before", "now")
REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(*same_cases.CASES, sep="\n")
        return 0
    names = options.only or list(same_cases.CASES)
    unknown = sorted(set(names) - set(same_cases.CASES))
    if unknown or not options.against:
        print(f"There is no case {unknown[0]}." if unknown else "Write --against REVISION.")
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary).absolute()
        if any((folder / side).exists() for side in SIDES):
            print(f"--keep {folder} holds records already; name another folder.")
            return 2
        started = time.perf_counter()
        try:
            _unpack(options.against, Path(temporary) / "tree")
        except subprocess.CalledProcessError as error:
            print(error.stderr.decode().strip())
            return 2
        _record_both(Path(temporary), folder, names, options.jobs)
        code = _report(folder, names, options)
        print(f"{len(names)} cases under two revisions in {time.perf_counter() - started:.0f} s")
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--against", metavar="REV", help="the revision to compare this working tree with")
    add("--only", nargs="+", metavar="CASE", help="these cases only")
    add("--list", action="store_true", help="print the cases' names and stop")
    add("--tolerance", type=float, default=0.0, metavar="X",
        help="accept a case whose server is within X (relative) after round one; what follows then"
        " may move, what goes before and what is counted may not")  # fmt: skip
    add("--ignore", nargs="+", default=[], metavar="PATTERN",
        help="differences that are meant, as 'KIND WHO: FIELD' with *")  # fmt: skip
    add("--jobs", type=int, default=2, metavar="N", help="processes side by side (default: 2)")
    add("--keep", metavar="DIR", help="leave the records here")
    add("--most", type=int, default=10, metavar="N", help="lines shown of a case")
    return parser


def _unpack(revision: str, target: Path) -> None:
    """Put a revision's files into a folder, without a trace in the repository."""
    command = ["git", "archive", "--format=tar", revision]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")


def _record_both(temporary: Path, folder: Path, names: Sequence[str], jobs: int) -> None:
    """Run all cases under both revisions, ``jobs`` processes at a time."""
    parts = max(1, min(jobs // 2, len(names)))
    trees = {"before": temporary / "tree", "now": ROOT}
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        started = [
            # Rows are read anew under each; the miniature alone is shared.
            pool.submit(_record, tree, temporary / f"cache_{side}", folder / side, names[i::parts])
            for i in range(parts)
            for side, tree in trees.items()
        ]
    for recording in started:
        recording.result()


def _record(tree: Path, cache: Path, folder: Path, names: Sequence[str]) -> None:
    """Run cases in a process of their own; what it says goes to ``FOLDER/CASE.log``."""
    cache.mkdir(exist_ok=True)
    shared = _shared_cache() / "embedded"
    shared.mkdir(parents=True, exist_ok=True)
    if not (cache / "embedded").exists():
        (cache / "embedded").symlink_to(shared)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "FEDERATEDSCOPE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(ROOT / "scripts" / "record_runs.py"), str(folder), *names]
    with (folder / f"{names[0]}.log").open("w", encoding="utf-8") as log:
        subprocess.run(
            command, cwd=tree, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )


def _shared_cache() -> Path:
    named = os.environ.get("FEDERATEDSCOPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named).expanduser() if named else Path(base) / "federatedscope"


def _report(folder: Path, names: Sequence[str], options: argparse.Namespace) -> int:
    """Compare all cases, say what came out, return the exit code."""
    wrong, miniatures = [], set()
    for name in names:
        sides = [folder / side / name for side in SIDES]
        problem = _problem(*sides)
        if problem:
            print(f"{name:<28} {problem}")
            wrong += [name] if not problem.startswith("new") else []
            continue
        before, now = (read_case(side) for side in sides)
        miniatures.add((frozenset(before.miniatures), frozenset(now.miniatures)))
        if not _say(name, compare(before, now), options):
            wrong.append(name)
    if any(old != new for old, new in miniatures):
        print(
            "The miniature's own code differs: each revision was run with a miniature of its own."
        )
    missing = [name for name in listed_methods() if name not in same_cases.covered()]
    if missing:
        print(f"In no case: {', '.join(missing)}. Add a line to scripts/same_cases.py.")
    within = f", within {options.tolerance:g} after round one" if options.tolerance else ""
    print(f"Different: {', '.join(wrong)}" if wrong else f"the same{within}")
    return 1 if wrong else 0


def _problem(before: Path, now: Path) -> str:
    """Why two records cannot be compared; empty where they can."""
    codes = []
    for side in (before, now):
        if not (side / "done.json").exists():
            logs = ", ".join(str(file) for file in sorted(side.parent.glob("*.log")))
            return f"was not recorded ({side.parent.name}); see {logs} (--keep DIR keeps it)"
        codes.append(json.loads((side / "done.json").read_text(encoding="utf-8"))["codes"])
    if not any(codes[1]) and REFUSED in codes[0]:
        return "new: the other revision refuses it"
    if any(codes[0]) or any(codes[1]):
        return f"FAILED: exit codes {codes[0]} before, {codes[1]} now"
    return ""


def _say(name: str, found: Comparison, options: argparse.Namespace) -> bool:
    """Print the lines of a case; whether it is the same."""
    all_differences = found.differences
    found.differences = [
        d for d in all_differences if not any(fnmatch(str(d.place), p) for p in options.ignore)
    ]
    wrong = found.beyond(options.tolerance)
    moved = ""
    if all_differences:
        moved = f"; server after round one differs by {found.server_error:.2g} (relative)"
    verdict = "DIFFERS" if wrong else "same" if not found.differences else "within"
    counts = f"{found.figures} figures, {found.tensors} tensors"
    print(f"{name:<28} {verdict:<8} {counts}, {len(found.differences)} differ{moved}")
    lines = list(described(wrong))
    for line in lines[: options.most]:
        print(f"    {line}")
    if len(lines) > options.most:
        print(f"    ... and {len(lines) - options.most} more lines (--most N)")
    return not wrong


def listed_methods(tree: Path = ROOT) -> list[str]:
    """Names in the catalogue of methods, as its command prints them."""
    done = subprocess.run(
        [sys.executable, "-m", "federatedscope_ext", "list", "methods"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    # A row begins at the margin, and two spaces or more separate its columns.
    first = re.findall(r"^(\S+)  ", done.stdout, re.MULTILINE)
    return first[first.index("name") + 1 :]


if __name__ == "__main__":
    sys.exit(main())
