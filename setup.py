"""Packaging. Running from a checkout needs no installation of the project itself."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "([^"]+)"', (HERE / "federatedscope" / "__init__.py").read_text("utf-8")
)

setup(
    name="federatedscope-ext",
    version=VERSION.group(1) if VERSION else "0",
    description="Federated LoRA fine-tuning of language models: FS-LLM's yamls on today's stack",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(
        include=["federatedscope*", "federatedscope_ext*", "fedfiles*", "fedlora*"]
    ),
    package_data={
        "federatedscope_ext.tools.embedded.corpora": ["words.yaml"],
        "federatedscope_ext.tools.report": ["templates/*.j2"],
    },
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "transformers>=5.0",
        "peft>=0.19",
        "accelerate>=1.10",
        "datasets>=4.0",
        "safetensors>=0.5",
        "filelock>=3.12",
        "numpy>=1.26",
        "scipy>=1.11",
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "Jinja2>=3.1",
        "rich>=13.7",
        "PyYAML>=6",
    ],
    extras_require={
        "deepspeed": ["deepspeed>=0.17"],
        "tensorboard": ["tensorboard>=2.15"],
        "wandb": ["wandb>=0.17"],
    },
)
