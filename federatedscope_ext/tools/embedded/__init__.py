"""The built-in miniature: small models and generated data for runs without a hub.

Importing it registers the preset ``embedded`` (the command-line flag ``--embedded``) where the
registry has presets.
"""

from __future__ import annotations

from federatedscope import register
from federatedscope_ext.tools.embedded.preset import swaps

__all__ = ["swaps"]

# Upstream's registry has no presets; there the corpora and models are still of use.
_register_preset = getattr(register, "register_preset", None)
if _register_preset is not None:
    _register_preset("embedded", swaps)
