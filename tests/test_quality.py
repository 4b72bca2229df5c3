"""Lint, format, types and the house rules, as tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    file
    for folder in (
        "fedfiles",
        "fedlora",
        "federatedscope",
        "federatedscope_ext",
        "scripts",
        "examples",
    )
    for file in (ROOT / folder).rglob("*.py")
)
LONGEST_FUNCTION, LONGEST_FILE = 80, 500
PICKLE_USERS = {"federatedscope/core/checkpoint.py"}


def tool(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


def test_lint() -> None:
    tool("ruff", "check", "--output-format", "concise")


def test_format() -> None:
    tool("ruff", "format", "--check")


def test_types() -> None:
    scripts = ["scripts"] if any(file.is_relative_to(ROOT / "scripts") for file in SOURCES) else []
    packages = ("fedfiles", "fedlora", "federatedscope", "federatedscope_ext", *scripts)
    tool("mypy", "--cache-dir", str(ROOT / ".mypy_cache"), *packages)


def offences(source: str, name: str = "x.py") -> Iterator[str]:
    """Breaches of the house rules that linting does not look for, or could be told to ignore."""
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        yield f"{name}: {lines} lines, at most {LONGEST_FILE}"
    for node in ast.walk(ast.parse(source)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{where}: bare except"
        elif isinstance(node, ast.Assert):
            yield f"{where}: assert"
        elif isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            yield f"{where}: star import"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{where}: {node.name} has {length} lines, at most {LONGEST_FUNCTION}"
        if name not in PICKLE_USERS and _imports(node) & {"pickle", "dill", "cloudpickle"}:
            yield f"{where}: pickle"


def _imports(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_house_rules() -> None:
    found = [
        offence
        for file in SOURCES
        for offence in offences(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("try:\n    pass\nexcept:\n    pass\n", "bare except"),
        ("assert True\n", "assert"),
        ("from os import *\n", "star import"),
        ("import pickle\n", "pickle"),
        ("from dill import dumps\n", "pickle"),
        ("def f():\n" + "    x = 1\n" * 80, "81 lines"),
        ("x = 1\n" * 501, "501 lines"),
    ],
)
def test_the_rules_find_offences(source: str, word: str) -> None:
    assert any(word in offence for offence in offences(source))


def test_sound_code_is_no_offence() -> None:
    assert not list(offences("def f() -> None:\n" + "    x = 1\n" * 79))


def test_every_yaml_is_headed_by_its_command() -> None:
    yamls = sorted((ROOT / "yamls").glob("*.yaml"))
    assert yamls
    wrong = [
        file.name
        for file in yamls
        if f"python federatedscope/main.py --cfg yamls/{file.name}" not in _heading(file)
    ]
    assert not wrong, wrong


def _heading(file: Path) -> str:
    """The comment that a file begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])
