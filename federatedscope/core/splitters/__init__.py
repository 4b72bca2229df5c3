"""Splitters: how the rows of one dataset are spread over clients."""

from federatedscope.core.splitters.base_splitter import BaseSplitter

__all__ = ["BaseSplitter"]
