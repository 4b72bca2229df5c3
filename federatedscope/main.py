"""The command: ``python federatedscope/main.py --cfg FILE [section.key value ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

# Run from a plain checkout: the packages lie beside this file's folder, and this folder itself
# must not be searched, for its modules would be found under wrong names.
_FOLDER = Path(__file__).resolve().parent
sys.path[:] = [str(_FOLDER.parent)] + [p for p in sys.path if Path(p or ".").resolve() != _FOLDER]

if __name__ == "__main__":
    from federatedscope.core.launch import main

    sys.exit(main())
