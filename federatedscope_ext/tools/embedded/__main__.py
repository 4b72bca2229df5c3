"""Prepare the miniature: ``python -m federatedscope_ext.tools.embedded [--which PART]``."""

from __future__ import annotations

import argparse
import sys
import time

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.embedded.cache import PARTS, ensure


def main(arguments: list[str] | None = None) -> int:
    """Build what is missing and say where it is; 0 when all went well, 2 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m federatedscope_ext.tools.embedded",
        description="Build the miniature's data and models, which --embedded runs on.",
    )
    parser.add_argument("--which", choices=(*PARTS, "all"), default="all")
    which = parser.parse_args(arguments).which
    for part in PARTS if which == "all" else (which,):
        started, spent = time.monotonic(), time.process_time()
        try:
            folder = ensure(part)
        except ExtensionError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        seconds, processor = time.monotonic() - started, time.process_time() - spent
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        times = f"{seconds:.1f} s, {processor:.1f} s of processor time"
        sys.stdout.write(f"{part}: {folder} ({size / 1e6:.1f} MB; {times})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
