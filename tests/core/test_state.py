"""State: a course goes on bit for bit where another one was at a quiet point."""

from __future__ import annotations

from typing import Any

import pytest
from exchanges import same

from federatedscope.core.codec import decode, encode
from federatedscope_ext.methods import METHODS

RANKED = ("llm.adapter.client_ranks", "[2, 4, 8]", "hetlora.regularization", 100.0)


class TestState:
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            *((method, ()) for method in ("fedavg", "local", *METHODS)),
            ("fedopt", ("fedopt.optimizer.type", "Adam", "fedopt.optimizer.lr", 0.01)),
            ("fedavg", ("federate.client_memory_mb", 1, "early_stop.patience", 3)),
            ("fedopt", ("fedopt.optimizer.type", "FedYogi", "fedopt.annealing", True)),
            ("feddpa", ("feddpa.schedule", "alternate")),
            ("flexlora", ("slora.rounds", 2)),
            *(("slora", ("slora.rounds", rounds, "llm.adapter.client_ranks", "[2, 4, 8]"))
              for rounds in (1, 2, 3)),
            ("zero_pad", ("llm.adapter.promotion.rank", 8, "llm.adapter.promotion.round", 1,
                          "llm.adapter.promotion.metric", "val_avg_loss",
                          "llm.adapter.client_ranks", "[2, 2, 2]")),
        ],
        ids=str,
    )  # fmt: skip
    def test_two_and_two_rounds_are_four(self, rig: Any, method: str, options: Any) -> None:
        """Bit for bit, through the codec, with client sampling; a new runner goes on."""
        ranked = RANKED if method not in ("fedopt", "local") else ()
        options = (*ranked, "federate.method", method, "federate.total_round_num", 4,
                   "federate.sample_client_num", 2, *options)  # fmt: skip
        whole, first, second = (rig.runner(*options) for _ in range(3))
        kept: list[bytes] = []

        def keep() -> None:
            if first.server.state == 2 and not kept:
                kept.append(encode(first.state_dict()))

        first.course.between_rounds = keep
        whole.run()
        first.run()
        second.load_state_dict(decode(kept[0]))
        second.run()
        assert second.server.state == whole.server.state
        assert same(final(second), final(whole))


def final(runner: Any) -> Any:
    state = runner.state_dict()
    # What a participant that came back from a file or a copy has is in another order.
    return {key: state[key] for key in ("server", "layouts", "store", "clients") if key in state}
