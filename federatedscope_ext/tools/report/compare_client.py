"""One client in a comparison: its metric before and after each evaluated aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federatedscope_ext.errors import ExtensionError
from federatedscope_ext.tools.report.compare import Comparison
from federatedscope_ext.tools.report.compare_groups import Figure, Group

__all__ = ["ClientRound", "check_client", "client_rounds"]

PHASES = ("before", "after")


@dataclass(frozen=True, slots=True)
class ClientRound:
    """A client at one round, over the runs of a group.

    ``before`` is after its local training, before the aggregation (``eval.phases``), ``after`` is
    what it holds of the aggregate; ``None`` where it was not evaluated.
    """

    round: int
    before: Figure | None
    after: Figure | None


def client_rounds(group: Group, client: int) -> list[ClientRound]:
    """The evaluated rounds of a client, ascending."""
    measured: dict[int, dict[str, list[float]]] = {}
    for run in group.runs:
        for series, rounds in run.summary.tables.items():
            for round_ in rounds:
                values = run.summary.evaluations.values(series, round_, run.summary.metric)
                if client in values:
                    phases = measured.setdefault(round_, {})
                    phases.setdefault(series.phase, []).append(values[client])
    return [
        ClientRound(round_, *(Figure.of(phases.get(phase, ())) for phase in PHASES))
        for round_, phases in sorted(measured.items())
    ]


def check_client(comparison: Comparison, client: int) -> None:
    """Refuse a client that no run has evaluated.

    Raises
    ------
    ExtensionError
        With the clients that there are.
    """
    known: set[int] = set()
    for run in comparison.runs:
        for rounds in run.summary.tables.values():
            known |= {k for clients in rounds.values() for k in clients}
    if client not in known:
        raise ExtensionError(
            "--client", client, "no run has evaluated this client", f"Write one of {_short(known)}"
        )


def _short(known: set[int]) -> str:
    ids: Sequence[int] = sorted(known)
    if len(ids) > 3 and ids[-1] - ids[0] == len(ids) - 1:
        return f"{ids[0]} to {ids[-1]}"
    return ", ".join(map(str, ids[:30])) + (", ..." if len(ids) > 30 else "")
