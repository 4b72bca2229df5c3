"""``python -m federatedscope_ext``; its commands are in :mod:`federatedscope_ext.tools`."""

from __future__ import annotations

import sys

from federatedscope_ext.tools.commands import main

if __name__ == "__main__":
    sys.exit(main())
