"""Summaries over clients in FederatedScope's result-line format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federatedscope.core.metric_values import finite
from federatedscope.core.monitors.means import mean, std, weighted_mean

SUPPORTED_FORMS = ("weighted_avg", "avg", "fairness", "raw")
_COUNTS = ("total", "correct")


def split_of(key: str) -> str:
    """``val`` of ``val_avg_loss``."""
    return key.split("_", 1)[0]


def summarize(results: Mapping[str, Sequence[float]], form: str) -> dict[str, float]:
    """One summary of all clients' metrics.

    Parameters
    ----------
    results : mapping of str to sequence of float
        ``{split}_{metric}`` to one value per client, ``{split}_total`` (rows) among them.
    form : str
        ``avg``: plain mean over clients; ``weighted_avg``: mean weighted by rows of the split;
        ``fairness``: spread over clients.
    """
    summary: dict[str, float] = {}
    for key, values in results.items():
        if key.split("_", 1)[-1] in _COUNTS or form == "avg":
            summary[key] = mean(values)
        elif form == "weighted_avg":
            summary[key] = weighted_mean(zip(values, _rows_of(results, key), strict=True))
        elif len(values) > 1:
            summary.update({f"{key}_{name}": v for name, v in _spread(values).items()})
        else:
            summary[key] = float(values[0])
    return summary


def _rows_of(results: Mapping[str, Sequence[float]], key: str) -> Sequence[float]:
    """Rows of the split that a metric is about, per client."""
    total = f"{split_of(key)}_total"
    if total not in results:
        raise ValueError(
            f"The results have {key} and no {total}: evaluate() of the trainer must also return "
            f"the number of rows, as {total!r}, for the weighted mean over clients."
        )
    return results[total]


def _spread(values: Sequence[float]) -> dict[str, float]:
    """The fairness figures of FederatedScope for one metric."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    tenth, nine_tenths = ordered.size // 10, ordered.size * 9 // 10
    norm = float(np.sqrt(np.mean(ordered**2)))
    spread = {
        "std": std(values),
        "bottom_decile": float(ordered[tenth]),
        "top_decile": float(ordered[nine_tenths]),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        # With fewer than ten clients the lowest tenth is empty; its closest meaning is the minimum.
        "bottom10%": mean(ordered[: max(tenth, 1)]),
        "top10%": mean(ordered[nine_tenths:]),
        "cos1": mean(values) / norm if norm else float("nan"),
    }
    if ordered[0] >= 0:
        # Infinite losses have none.
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (ordered + 1e-9) / (ordered + 1e-9).sum()
            spread["entropy"] = float(-(share * np.log(share)).sum())
    return spread


class ResultLine(dict[str, Any]):
    """A result line. Its text is what ``ast.literal_eval`` reads: ``None`` for NaN and infinity."""

    def __str__(self) -> str:
        return str(finite(self))


def result_line(
    role: str, rnd: int | str, forms: Mapping[str, Any], digits: int | None = None
) -> ResultLine:
    """``{'Role': ..., 'Round': ..., 'Results_avg': {...}, ...}``."""
    results = {f"Results_{form}": _rounded(values, digits) for form, values in forms.items()}
    return ResultLine(Role=role, Round=rnd, **results)


def _rounded(value: Any, digits: int | None) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(v, digits) for key, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(v, digits) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if digits is None else round(float(value), digits)
    return value.item() if isinstance(value, np.generic) else value
