"""Run cases one after the other in this process; ``same_figures.py`` starts it.

    PYTHONPATH=REVISION python scripts/record_runs.py FOLDER CASE ...

Run ``i`` of a case goes to ``FOLDER/CASE/i``; ``FOLDER/CASE/done.json`` says how it ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from same_cases import runs_of

__all__ = ["argv", "main"]


def argv(options: dict[str, Any], outdir: Path, last: Path) -> list[str]:
    """The command line of a run."""
    line = ["--embedded", "--quiet", "--outdir", str(outdir)]
    for key, value in options.items():
        text = value if isinstance(value, str) else repr(value)
        line += [key, text.replace("LAST", str(last))]
    return [*line, "extensions", "['federatedscope_ext','record_tensors']"]


def record(name: str, folder: Path) -> dict[str, Any]:
    """Run a case; returns its exit codes and seconds."""
    from federatedscope.core.launch import main as launch

    started, last = time.perf_counter(), folder
    codes: list[int | str] = []
    for number, options in enumerate(runs_of(name), 1):
        outdir = folder / str(number)
        try:
            codes.append(launch(argv(options, outdir, last)))
        except Exception as error:  # noqa: BLE001  (the other cases are still to be run)
            codes.append(repr(error))
        last = outdir
    return {"codes": codes, "seconds": round(time.perf_counter() - started, 2)}


def main(folder: Path, names: list[str]) -> None:
    """Run all; pages are nobody's figures and are left out."""
    import federatedscope_ext  # noqa: F401  (registers its report)
    from federatedscope import register

    register.callback_dict.pop("report", None)
    for name in names:
        (folder / name).mkdir(parents=True)
        print(name, flush=True)
        done = record(name, folder / name)
        (folder / name / "done.json").write_text(json.dumps(done), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
