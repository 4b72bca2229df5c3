"""What combining adapters of unequal rank costs the server: stacked against dense.

    python scripts/bench/aggregate.py                    # layers of 768 to 4096 and 4096 x 11008
    python scripts/bench/aggregate.py --full             # dense on the large ones too: many minutes
    python scripts/bench/aggregate.py --llama7b          # a FlexLoRA round at the shape of LLaMA-7B

Every figure is one process: seconds of one decomposition (of generated uploads, cut to the largest
rank), and how much the peak of the resident memory rose over what it was before the first upload.
``error`` is ``||W V - U S||_F / ||S||_F``, and ``sigma differs`` the largest relative difference of
the singular values that both paths found. ``CPU ratio`` compares seconds of the processes' cores;
on a machine that others use, measure with ``--threads 1``, where it is steady.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import runs
from runs import hand_back, in_child, mib, resident_bytes, say

LAYERS = [(768, 768), (1024, 1024), (2048, 2048), (4096, 4096), (4096, 11008)]
LARGE = 2048  # from this smaller side on, dense takes minutes
CLIENTS = {"few": [4, 8, 16], "many": [8, 30, 8, 30, 8, 30, 8, 30, 8, 100]}
#: name, d_out, d_in, rank in attention (0) or in the feed-forward part (1)
LLAMA_7B = [
    *((name, 4096, 4096, 0) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    ("gate_proj", 11008, 4096, 1),
    ("up_proj", 11008, 4096, 1),
    ("down_proj", 4096, 11008, 1),
]
LLAMA_BLOCKS = 32
RANK_TYPES = [(8, 8), (30, 30), (30, 200), (200, 200)]
#: shares of the rank types among the clients (FlexLoRA's mixes)
MIXES = {"uniform": (0.25, 0.25, 0.25, 0.25), "heavy_tail_light": (0.80, 0.05, 0.05, 0.10)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write ``--json``."""
    if runs.is_child(lambda job: hand_back((_llama if job["kind"] == "llama" else _layer)(job))):
        return 0
    options = _options(arguments)
    if options.llama7b:
        result: Any = _llama_rows(options)
        _print_llama(result)
    else:
        result = _layer_rows(options)
        _print_layers(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="dense on layers above 1024 too")
    parser.add_argument("--llama7b", action="store_true", help="a FlexLoRA round at that shape")
    parser.add_argument("--layers", nargs="+", type=_sides, metavar="OUTxIN",
                        help="other layers than the usual, such as 768x3072")  # fmt: skip
    parser.add_argument("--clients", type=int, default=20, help="clients of the LLaMA round")
    parser.add_argument("--mix", choices=MIXES, default="uniform", help="their ranks")
    parser.add_argument("--blocks", type=int, default=1, help="blocks to compute of the 32")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as cores")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    return parser.parse_args(arguments)


def _sides(text: str) -> tuple[int, int]:
    """``(d_out, d_in)`` of ``768x3072``; ``768`` is a square."""
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no layer; write OUTxIN, as in 768x3072")
    d_out = int(found[1])
    return d_out, int(found[2] or d_out)


def _layer_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for d_out, d_in in options.layers or LAYERS:
        for clients, ranks in CLIENTS.items():
            row: dict[str, Any] = {"d_out": d_out, "d_in": d_in, "clients": clients}
            row |= {"summed_rank": sum(ranks), "dtype": options.dtype}
            for path in ("stacked", "dense"):
                if path == "dense" and min(d_out, d_in) >= LARGE and not options.full:
                    continue
                say(f"{d_out} x {d_in}, {clients} clients, {path}")
                job = {"kind": "layer", "sides": (d_out, d_in), "ranks": ranks, "path": path}
                job["dtype"] = options.dtype
                row[path] = in_child(__file__, job, options.threads)
            rows.append(row)
    return rows


def _layer(job: dict[str, Any]) -> dict[str, Any]:
    """One decomposition, in a process of its own."""
    import torch

    from fedlora.pairs import LoraPair
    from fedlora.svd import UpdateSum

    d_out, d_in = job["sides"]
    generator = torch.Generator().manual_seed(0)
    pairs = list(_pairs(d_out, d_in, job["ranks"], generator))
    torch.linalg.svd(torch.eye(8, dtype=torch.float64))  # the libraries are loaded
    before = _settled_memory()
    start, cpu = time.perf_counter(), time.process_time()
    total = UpdateSum(d_out, d_in, getattr(torch, job["dtype"]), path=job["path"])
    for pair in pairs:
        total.add(1.0 / len(pairs), pair)
    u, s, vh = total.svd(max(job["ranks"]))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    risen = _peak() - before
    rest = torch.zeros(d_out, len(s), dtype=torch.float64) - u.double() * s.double()
    for pair in pairs:
        wide = LoraPair(pair.A.double(), pair.B.double(), pair.scale)
        rest += wide.B @ (wide.A @ vh.double().T) * (wide.scale / len(pairs))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "memory": risen,
        "error": float(rest.norm() / s.double().norm()),
        "sigma": s.tolist(),
    }


def _pairs(d_out: int, d_in: int, ranks: Sequence[int], generator: Any) -> Iterator[Any]:
    """Uploads in float32, of a scale that falls with the rank."""
    import torch

    from fedlora.pairs import LoraPair

    for rank in ranks:
        a = torch.randn(rank, d_in, generator=generator)
        yield LoraPair(a, torch.randn(d_out, rank, generator=generator), 16.0 / rank)


def _peak() -> int:
    from federatedscope.core.machine import peak_memory_bytes

    return int(peak_memory_bytes())


def _settled_memory() -> int:
    """The resident memory now. The system's record of the peak starts anew, where it can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident_bytes()


def _llama_rows(options: argparse.Namespace) -> dict[str, Any]:
    shares = MIXES[options.mix]
    types = [
        kind
        for kind, share in zip(RANK_TYPES, shares, strict=True)
        for _ in range(round(share * options.clients))
    ]
    job = {"kind": "llama", "types": types, "dtype": options.dtype, "blocks": options.blocks}
    say(f"{options.blocks} of {LLAMA_BLOCKS} blocks, {len(types)} clients")
    result = {"clients": len(types), "mix": options.mix, **in_child(__file__, job, options.threads)}
    if options.full:
        say("the dense way, one layer of 4096 x 4096")
        job = {"kind": "layer", "sides": (4096, 4096), "path": "dense", "dtype": options.dtype}
        job["ranks"] = [attention for attention, _ in types]
        result["dense_q_proj"] = in_child(__file__, job, options.threads)
    return result


def _llama(job: dict[str, Any]) -> dict[str, Any]:
    """FlexLoRA's rule on the modules of some blocks, one module after the other."""
    import torch

    from federatedscope_ext.methods.flexlora import FlexLora

    rule = FlexLora(config={"flexlora": {"dtype": job["dtype"]}})
    rule.diagnose = False
    generator = torch.Generator().manual_seed(0)
    before, modules = _settled_memory(), []
    for block in range(job["blocks"]):
        for name, d_out, d_in, part in LLAMA_7B:
            module = f"layers.{block}.{name}"
            ranks = [kind[part] for kind in job["types"]]
            uploads = [
                (1.0, {f"{module}.lora_A.weight": p.A, f"{module}.lora_B.weight": p.B})
                for p in _pairs(d_out, d_in, ranks, generator)
            ]
            scales = {k + 1: {module: 16.0 / rank} for k, rank in enumerate(ranks)}
            start, cpu = time.perf_counter(), time.process_time()
            rule.aggregate({"client_feedback": uploads, "scales": scales})
            seconds, used = time.perf_counter() - start, time.process_time() - cpu
            say(f"{module}: {seconds:.1f} s")
            row = {"module": module, "d_out": d_out, "d_in": d_in, "summed_rank": sum(ranks)}
            modules.append({**row, "seconds": seconds, "cpu_seconds": used})
    return {"blocks": job["blocks"], "modules": modules, "memory": _peak() - before}


def _print_layers(rows: list[dict[str, Any]]) -> None:
    columns = ("layer", "clients", "summed", "stacked s", "dense s", "CPU ratio", "stacked MiB")
    print("".join(f"{c:>14}" for c in (*columns, "dense MiB", "error", "sigma differs")))
    for row in rows:
        stacked, dense = row["stacked"], row.get("dense")
        cells = [f"{row['d_out']}x{row['d_in']}", row["clients"], str(row["summed_rank"])]
        cells += [f"{stacked['seconds']:.3f}", f"{dense['seconds']:.3f}" if dense else "-"]
        cells += [f"{dense['cpu_seconds'] / stacked['cpu_seconds']:.1f}" if dense else "-"]
        cells += [mib(stacked["memory"]), mib(dense["memory"] if dense else None)]
        cells += [f"{stacked['error']:.0e}", f"{_sigma_differs(row):.0e}" if dense else "-"]
        print("".join(f"{cell:>14}" for cell in cells))


def _sigma_differs(row: dict[str, Any]) -> float:
    pairs = zip(row["stacked"]["sigma"], row["dense"]["sigma"], strict=True)
    return max(abs(a - b) / b for a, b in pairs)


def _print_llama(result: dict[str, Any]) -> None:
    print(f"{'module':<24}{'layer':>14}{'summed':>8}{'seconds':>10}{'CPU s':>10}")
    for row in result["modules"]:
        layer = f"{row['d_out']}x{row['d_in']}"
        figures = f"{row['seconds']:>10.1f}{row['cpu_seconds']:>10.1f}"
        print(f"{row['module']:<24}{layer:>14}{row['summed_rank']:>8}{figures}")
    total = sum(row["seconds"] for row in result["modules"])
    print(
        f"{result['blocks']} of {LLAMA_BLOCKS} blocks: {total:.0f} s; at the same pace a round "
        f"takes {total * LLAMA_BLOCKS / result['blocks'] / 60:.1f} min. Memory above the start, "
        f"uploads of one module included: {mib(result['memory'])} MiB."
    )
    if dense := result.get("dense_q_proj"):
        ours = next(r["seconds"] for r in result["modules"] if r["module"].endswith("q_proj"))
        print(
            f"q_proj the dense way: {dense['seconds']:.1f} s and {mib(dense['memory'])} MiB, "
            f"{dense['seconds'] / ours:.1f} times as long."
        )


if __name__ == "__main__":
    sys.exit(main())
