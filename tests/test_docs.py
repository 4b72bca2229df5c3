"""The README says what is there: its example runs, its references exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_example_that_is_tested():
    example = (ROOT / "examples" / "clipped_mean.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in README
    assert len(example.splitlines()) < 30


def test_the_configuration_reference_is_generated():
    from federatedscope.core.configs.config import apply_registered_configs, global_cfg
    from federatedscope.core.configs.reference import configuration_reference
    from federatedscope.core.extensions import load_extensions

    cfg = global_cfg.clone()
    load_extensions(["federatedscope_ext"])
    apply_registered_configs(cfg)
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written.strip() == configuration_reference(cfg).strip()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize(
    "pattern", sorted(set(re.findall(r"`([\w*]+\.yaml)`", README)) - {"config.yaml"})
)
def test_yamls_of_the_readme_exist(pattern):
    assert list((ROOT / "yamls").glob(pattern))
