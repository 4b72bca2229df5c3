"""Datasets of workers and the translators that make them."""

from federatedscope.core.data.base_data import ClientData, StandaloneDataDict
from federatedscope.core.data.base_translator import BaseDataTranslator
from federatedscope.core.data.dummy_translator import DummyDataTranslator
from federatedscope.core.data.wrap_dataset import WrapDataset

__all__ = [
    "BaseDataTranslator",
    "ClientData",
    "DummyDataTranslator",
    "StandaloneDataDict",
    "WrapDataset",
]
