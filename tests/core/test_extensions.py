"""Importing extensions and contrib files."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from federatedscope.core import extensions
from federatedscope.core.errors import ConfigError, UserError
from federatedscope.core.extensions import contrib_modules, load_extensions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def contrib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A contrib package of the test's own, in place of the project's."""
    package = types.ModuleType("fake_contrib")
    package.__path__ = [str(folder / "fake_contrib")]
    monkeypatch.setitem(sys.modules, "fake_contrib", package)
    here = lambda: contrib_modules(package)  # noqa: E731
    monkeypatch.setattr(extensions, "contrib_modules", here)
    for kind in ("metrics", "data"):
        (folder / "fake_contrib" / kind).mkdir(parents=True)
        (folder / "fake_contrib" / kind / "__init__.py").write_text("")
    return folder / "fake_contrib"


def test_the_projects_contrib_has_the_known_folders() -> None:
    from federatedscope import contrib as package

    found = {p.parent.name for p in Path(package.__path__[0]).glob("*/__init__.py")}
    wanted = "configs data loss metrics model optimizer scheduler splitter trainer worker"
    assert found == set(wanted.split())


def test_contrib_files_are_imported_in_order(contrib: Path) -> None:
    line = "import sys; sys.modules.setdefault('seen_abc', []).append(__name__)\n"
    for name in ("metrics/a.py", "data/z.py", "data/b.py", "data/_hidden.py"):
        (contrib / name).write_text(line)
    sys.modules.pop("seen_abc", None)
    load_extensions([])
    load_extensions([])
    seen = sys.modules.pop("seen_abc")
    assert list(seen) == ["fake_contrib.data.b", "fake_contrib.data.z", "fake_contrib.metrics.a"]


@pytest.mark.parametrize("text", ["import no_such_module_abc", "def broken("])
def test_a_broken_contrib_file_is_named(contrib: Path, text: str) -> None:
    file = contrib / "data" / "broken_one.py"
    file.write_text(text)
    with pytest.raises(UserError, match="cannot be imported") as caught:
        load_extensions([])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such module", "PYTHONPATH"]),
        ("import no_such_module_abc", ["no_such_module_abc", "Install"]),
        ("from os import no_such_name_abc", ["cannot be imported"]),
        ("x = = 1", ["cannot be imported"]),
    ],
)
def test_a_broken_extension_is_named(folder: Path, text: str | None, words: list[str]) -> None:
    name = f"extension_{abs(hash(text))}"
    if text is not None:
        (folder / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_extensions([name])
    assert caught.value.field == "extensions"
    assert all(word in str(caught.value) for word in [name, *words])


def test_named_modules_are_returned(folder: Path) -> None:
    (folder / "good_extension_abc.py").write_text("value = 3")
    (module,) = load_extensions(["good_extension_abc"])
    assert module.value == 3
    with pytest.raises(ConfigError, match="no such module"):
        load_extensions(["good_extension_abc.sub"])


def test_the_tools_of_a_package_are_imported_after_it(folder: Path) -> None:
    (folder / "with_tools_abc" / "tools").mkdir(parents=True)
    (folder / "with_tools_abc" / "__init__.py").write_text("order = ['package']\n")
    (folder / "with_tools_abc" / "tools" / "__init__.py").write_text(
        "from with_tools_abc import order\norder.append('tools')\n"
    )
    (package,) = load_extensions(["with_tools_abc"])
    assert package.order == ["package", "tools"]


def test_tools_that_are_broken_are_named(folder: Path) -> None:
    (folder / "broken_tools_abc" / "tools").mkdir(parents=True)
    (folder / "broken_tools_abc" / "__init__.py").write_text("")
    (folder / "broken_tools_abc" / "tools" / "__init__.py").write_text("import no_such_abc\n")
    with pytest.raises(ConfigError, match=r"broken_tools_abc.tools.*no_such_abc"):
        load_extensions(["broken_tools_abc"])
