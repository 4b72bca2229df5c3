"""Four floors, arrows only downwards: algebra, runtime, extension, tools."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALGEBRA, FILES, RUNTIME, EXTENSION = (
    ROOT / name for name in ("fedlora", "fedfiles", "federatedscope", "federatedscope_ext")
)
# The command line is a tool; Python looks for it in the package itself.
TOOLS = (EXTENSION / "tools", EXTENSION / "__main__.py")

# What FederatedScope itself can register; the extension asks for further kinds by `getattr`.
UPSTREAM_KINDS = ("config", "criterion", "data", "metric", "model", "optimizer", "regularizer",
                  "scheduler", "splitter", "trainer", "transform", "worker")  # fmt: skip
# What docs and upstream promise to extensions; `None`: every name of the module.
CONTRACT: dict[str, set[str] | None] = {
    "federatedscope.register": {f"register_{kind}" for kind in UPSTREAM_KINDS},
    "federatedscope.core.configs.config": {"CN", "global_cfg"},
    "federatedscope.core.workers": {"Server", "Client"},
    "federatedscope.core.message": {"Message"},
    "federatedscope.core.trainers": {"GeneralTorchTrainer"},
    "federatedscope.core.trainers.context": {"CtxVar"},
    "federatedscope.core.trainers.enums": {"MODE", "LIFECYCLE"},
    "federatedscope.core.data": {"ClientData", "BaseDataTranslator"},
}


def imports(source: str) -> Iterator[tuple[int, str, str]]:
    """``(line, module, name)`` of every import, also of constant ``import_module`` calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, "." * node.level + (node.module or ""), alias.name
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__", "find_spec") and isinstance(
                first, ast.Constant
            ):
                yield node.lineno, str(first.value), ""


def is_contract(module: str, name: str) -> bool:
    if module.split(".")[0] != "federatedscope":
        return True
    if module == "federatedscope":
        return name == "register"
    allowed = CONTRACT.get(module, set())
    return allowed is None or name in allowed


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def is_tool(file: Path) -> bool:
    return any(file.is_relative_to(one) for one in TOOLS)


def test_the_extension_imports_contract_names_only() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {module} {name}"
        for file in files(EXTENSION)
        if not is_tool(file)
        for line, module, name in imports(file.read_text(encoding="utf-8"))
        if not is_contract(module, name)
    ]
    assert not wrong, "\n".join(wrong)


def arrows(folder: Path, *forbidden: str) -> list[str]:
    """Imports of ``folder`` that lead into one of the ``forbidden`` packages."""
    return [
        f"{file.relative_to(ROOT)}:{line}: {module} {name}".rstrip()
        for file in files(folder)
        for line, module, name in imports(file.read_text(encoding="utf-8"))
        if any(f"{module}.{name}.".startswith(f"{package}.") for package in forbidden)
    ]


def test_the_algebra_stands_on_pytorch_alone() -> None:
    known = {"fedlora", "torch", *sys.stdlib_module_names}
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {module}"
        for file in files(ALGEBRA)
        for line, module, _ in imports(file.read_text(encoding="utf-8"))
        if module.split(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)


def test_the_readers_of_files_know_nobody_above_them() -> None:
    wrong = arrows(FILES, "federatedscope", "federatedscope_ext")
    assert not wrong, "\n".join(wrong)


def test_the_core_of_the_runtime_never_imports_language_models() -> None:
    wrong = arrows(RUNTIME / "core", "federatedscope.llm")
    assert not wrong, "\n".join(wrong)


def test_the_runtime_never_imports_the_extension() -> None:
    wrong = arrows(RUNTIME, "federatedscope_ext")
    assert not wrong, "\n".join(wrong)


def test_nobody_below_knows_the_tools() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {module} {name}"
        for file in (*files(RUNTIME), *files(EXTENSION))
        if not is_tool(file)
        for line, module, name in imports(file.read_text(encoding="utf-8"))
        if is_of_the_tools(module, name)
    ]
    assert not wrong, "\n".join(wrong)


def is_of_the_tools(module: str, name: str = "") -> bool:
    return f"{module}.{name}.".startswith("federatedscope_ext.tools.")


@pytest.mark.parametrize(
    ("line", "of_the_tools"),
    [
        ("from federatedscope_ext.tools.report.records import RunRecord", True),
        ("from federatedscope_ext import tools", True),
        ("import federatedscope_ext.tools", True),
        ("import_module('federatedscope_ext.tools.report')", True),
        ("from federatedscope_ext import ranks", False),
        ("from federatedscope_ext.toolshed import hammer", False),
    ],
)
def test_the_arrow_itself(line: str, of_the_tools: bool) -> None:
    ((_, module, name),) = imports(line)
    assert is_of_the_tools(module, name) is of_the_tools


def test_the_extension_alone_loads_no_tool() -> None:
    script = "import sys, federatedscope_ext; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "federatedscope_ext.ranks" in done.stdout.split()
    assert not [name for name in done.stdout.split() if is_of_the_tools(name)]


def test_no_relative_imports() -> None:
    """They would hide from the two tests above."""
    wrong = [
        f"{file.relative_to(ROOT)}:{line}"
        for folder in (ALGEBRA, FILES, RUNTIME, EXTENSION)
        for file in files(folder)
        for line, module, _ in imports(file.read_text(encoding="utf-8"))
        if module.startswith(".")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("from federatedscope.register import register_worker", True),
        ("from federatedscope.register import register_aggregator", False),
        ("from federatedscope import register", True),
        ("from federatedscope.core.workers import Server", True),
        ("import federatedscope.core.workers.server", False),
        ("from federatedscope.core.workers import Worker", False),
        ("from federatedscope.core.errors import ConfigError", False),
        ("from federatedscope import core", False),
        ("import_module('federatedscope.core.launch')", False),
        ("from federatedscope_ext.errors import ExtensionError", True),
        ("import torch", True),
    ],
)
def test_the_rule_itself(line: str, good: bool) -> None:
    ((_, module, name),) = imports(line)
    assert is_contract(module, name) is good


def test_the_arrows_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.py").write_text(
        "from federatedscope import llm\nimport federatedscope.llm.hub\nimport federatedscope.lll\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert [line.split(":")[1] for line in arrows(tmp_path, "federatedscope.llm")] == ["1", "2"]


def test_every_contract_module_can_be_imported_first() -> None:
    """Whatever an extension imports first must not run into a circle."""
    script = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m.split(".")[0] == "federatedscope"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    modules = [*CONTRACT, "federatedscope.core.splitters", "federatedscope.core.aggregators"]
    done = subprocess.run(
        [sys.executable, "-c", script, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(
    not os.environ.get("FEDERATEDSCOPE_UPSTREAM"), reason="FEDERATEDSCOPE_UPSTREAM is not set"
)
def test_the_extension_registers_itself_in_an_upstream_checkout(tmp_path: Path) -> None:
    """Workers, options and trainers, beside upstream's own registry; its servers bring rules."""
    for folder in (ALGEBRA, FILES, EXTENSION):
        (tmp_path / folder.name).symlink_to(folder)
    script = """
import federatedscope, federatedscope_ext
from federatedscope import register
from federatedscope.core.configs.config import global_cfg
from federatedscope_ext.workers import base
workers = register.worker_dict["flexlora"]("flexlora")
assert issubclass(workers["server"], base.MethodServer)
assert register.trainer_dict["federatedscope_ext"]("gluetrainer") if \
    "federatedscope_ext" in register.trainer_dict else "gluetrainer" in register.trainer_dict
assert global_cfg.flexlora.path == "auto"
print(federatedscope.__file__)
"""
    upstream = Path(os.environ["FEDERATEDSCOPE_UPSTREAM"]) / "fs"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{upstream}{os.pathsep}{tmp_path}",
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(upstream) in done.stdout
