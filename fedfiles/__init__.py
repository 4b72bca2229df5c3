"""Files of text, tokenizers, the hub, and a cache of what is made of them.

Nothing federated and no configuration: the runtime and the extension both stand on it, and it
comes along where the extension runs in another checkout.
"""

from __future__ import annotations
