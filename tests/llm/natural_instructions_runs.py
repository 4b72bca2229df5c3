"""Configurations of small runs on Natural Instructions."""

from __future__ import annotations

from typing import Any

from federatedscope.core.cmd_args import parse_args
from federatedscope.core.configs.loading import build_config


def config_of(rig: Any, *pairs: Any) -> Any:
    """The configuration that a command line of these pairs gives."""
    return build_config(parse_args(rig.argv(*pairs))).cfg
