"""Ways to spread rows over clients; importing this package registers them."""

from federatedscope_ext.splitters import quality

__all__ = ["quality"]
