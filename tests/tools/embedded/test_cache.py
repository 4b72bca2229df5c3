"""The cache: built once, whole or not at all, by one of several at a time."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.embedded import __main__ as command
from federatedscope_ext.tools.embedded import cache

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """An own cache folder, and builders that note that they ran."""
    monkeypatch.setenv("FEDERATEDSCOPE_CACHE", str(tmp_path / "cache"))
    done: list[str] = []

    def builder(part):
        def build(folder, report):
            done.append(part)
            (folder / "half").write_text("1")
            report(0.5)
            (folder / "file").write_text(part)

        return build

    monkeypatch.setattr(cache, "_BUILDERS", {part: builder(part) for part in cache.PARTS})
    return done


@pytest.mark.parametrize("name", ["corpora/words.yaml", "corpora/pairs.py", "pretrain.py"])
def test_another_source_is_another_folder(monkeypatch, tmp_path, name):
    copy = shutil.copytree(Path(cache.__file__).parent, tmp_path / "embedded")
    monkeypatch.setattr(cache, "__file__", str(copy / "cache.py"))
    assert cache.digest.__wrapped__() == cache.digest()
    (copy / name).write_text((copy / name).read_text() + "# more\n")
    assert cache.digest.__wrapped__() != cache.digest()


def test_a_part_is_built_once(builds):
    folder = cache.ensure("encoder")
    assert cache.ensure("encoder") == folder
    assert builds == ["encoder"]
    assert (folder / "file").read_text() == "encoder"
    assert folder.parent.name == cache.digest()


def test_parts_are_built_on_demand(builds):
    cache.ensure("data")
    assert builds == ["data"]
    assert not (cache.cache_root() / "llama").exists()


def test_a_failed_build_leaves_nothing(builds, monkeypatch):
    def fail(folder, report):
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    monkeypatch.setitem(cache._BUILDERS, "data", fail)
    with pytest.raises(KeyboardInterrupt):
        cache.ensure("data")
    assert [file.name for file in cache.cache_root().iterdir()] == ["data.lock"]


def test_several_at_once_build_once(builds):
    folders: list[Path] = []
    workers = [
        threading.Thread(target=lambda: folders.append(cache.ensure("data"))) for _ in "1234"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert builds == ["data"] and len(set(folders)) == 1


def test_a_lost_race_keeps_the_first(builds, monkeypatch):
    target = cache.cache_root() / "data"

    def slower(folder, report):
        target.mkdir()
        (target / "file").write_text("first")

    monkeypatch.setitem(cache._BUILDERS, "data", slower)
    assert (cache.ensure("data") / "file").read_text() == "first"


def test_a_folder_that_cannot_be_written_is_the_users_to_change(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDERATEDSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ExtensionError, match=r"FEDERATEDSCOPE_CACHE = .*can be written"):
        cache.ensure("data")
    assert command.main(["--which", "data"]) == 2


@pytest.mark.parametrize("live", [True, False])
def test_progress(live):
    stream = io.StringIO()
    stream.isatty = lambda: live
    progress = cache.Progress("Building", stream)
    progress(0.5)
    progress.finish(Path("/there"))
    text = stream.getvalue()
    assert (" 50%" in text) is live
    assert "Building: 0 s, in /there\n" in text


def test_the_command_says_where(builds, capsys):
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(cache.PARTS) == builds
    assert all(str(cache.cache_root()) in line for line in lines)


def test_it_is_a_light_import():
    """`--help` and `list` must not wait for the models' libraries."""
    code = (
        "import federatedscope_ext.tools.embedded.preset, sys; print('transformers' in sys.modules)"
    )
    stub = "import sys, types; m = types.ModuleType('federatedscope_ext'); m.__path__ = [{!r}]; "
    stub = stub.format(str(ROOT / "federatedscope_ext")) + "sys.modules['federatedscope_ext'] = m; "
    done = subprocess.run(
        [sys.executable, "-c", stub + code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_tokenizers_are_the_same_in_every_process() -> None:
    """Trainers of tokenizers break ties by hash order, which differs from process to process."""
    script = (
        "from federatedscope_ext.tools.embedded import models\n"
        "texts = [f'word{i % 7} other{i % 3} longer{i % 5}' for i in range(60)]\n"
        "for build in (models.encoder_tokenizer, models.llama_tokenizer):\n"
        "    print(build(texts).backend_tokenizer.to_str())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert "longer4" in outputs[0]
