"""A runner and a checker that are quick and do as they are told, in place of the runtime's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from federatedscope_ext.tools.sweep.check import Verdict
from federatedscope_ext.tools.sweep.plan import Point

MakePoints = Callable[..., list[Point]]

# Reads `--outdir DIR key value ...`; the keys of `fake.` say how it behaves. It leaves the files
# that a sweep reads of a run, ends well at SIGTERM, and writes what it saw of its environment.
RUNNER = """
import json, os, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
out = Path(words[words.index("--outdir") + 1])
keys = {k: v for k, v in zip(words, words[1:]) if "." in k or k == "seed"}
out.mkdir(parents=True, exist_ok=True)
run = {"format": 1, "name": out.name, "status": "running",
       "method": keys.get("federate.method", "m"), "task": "t", "model": "n",
       "seed": int(keys.get("seed", 0)), "rounds": 2, "seconds": 1.5,
       "main_metric": "val_acc", "clients": [{"id": 1, "rows": {"val": 10}}]}
def save(status):
    (out / "run.json").write_text(json.dumps({**run, "status": status}))
def end(*_):
    save("interrupted")
    (out / "report.html").write_text("the report")
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
if keys.get("fake.deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(out / "config.yaml").write_text(json.dumps(keys))
(out / "environment.json").write_text(json.dumps(dict(os.environ)))
save("running")
with (out / "metrics.jsonl").open("w") as file:
    for rnd in (1, 2):
        for client in (1, 2):
            event = {"event": "eval", "round": rnd, "client": client, "phase": "after",
                     "scope": "personal", "metrics": {"val_acc": 0.25 * rnd + 0.1 * client}}
            file.write(json.dumps(event) + "\\n")
print("the first line\\nthe last line")
time.sleep(float(keys.get("fake.sleep", 0)))
if keys.get("fake.fail"):
    save("failed")
    sys.exit("it went wrong")
save("finished")
"""


class FakeChecker:
    """Answers with the keys of the command as configuration.

    Refuses ``seed 13``, and at a full look a value ``no_data``.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], bool]] = []

    def __call__(self, arguments: Sequence[str], full: bool) -> Verdict:
        self.asked.append((list(arguments), full))
        given = dict(itertools.pairwise(arguments))
        if given["--cfg"].endswith("config.yaml"):
            config: dict[str, Any] = json.loads(Path(given["--cfg"]).read_text())
        else:
            config = {
                key: value
                for key, value in given.items()
                if ("." in key and not key.startswith(("-", "/"))) or key == "seed"
            }
        if "--client_cfg" in given:
            config["client_1.train.lr"] = 0.3
        if config.get("seed") == "13":
            return Verdict("seed = 13: an unlucky number.")
        if full and "no_data" in config.values():
            return Verdict("there is no data.", config)
        return Verdict("", config)
