"""The course: its rounds, and the one point between them at which nothing is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from federatedscope.core.errors import UserError
from federatedscope.core.exchange import Exchange


class Course:
    """Leads a server and its clients from the first round to the last.

    Parameters
    ----------
    server : Server
        Of any method; one from outside may lead the rounds itself (see the notes).
    clients : mapping of int to Client
        The clients that live in this process.
    exchange : Exchange
        Carries their messages.
    between_rounds : callable, optional
        Called before each round, when no message is under way: the place for checkpoints.

    Notes
    -----
    Handlers only note down what has come; the steps are these, here. FederatedScope's own servers
    go on to the next step inside the handler of the last answer. A server that does so, because it
    overrides ``check_and_move_on`` that way, has moved on by the time that ``drain`` returns, and
    the steps that it has done are not done again.
    """

    def __init__(
        self,
        server: Any,
        clients: Mapping[int, Any],
        exchange: Exchange,
        between_rounds: Callable[[], None] = lambda: None,
    ) -> None:
        self.server = server
        self.clients = clients
        self.exchange = exchange
        self.between_rounds = between_rounds

    def run(self) -> None:
        """Run until the server says that it is over.

        Raises
        ------
        UserError
            None of the clients of a round has answered.
        """
        server, exchange = self.server, self.exchange
        self._gather()
        while not server.is_finish:
            self.between_rounds()
            before = server.state
            if server.rounds_left and not server.has_begun:
                server.begin_round()  # sample clients, slice the state for each, send it
            exchange.drain()  # clients train; their uploads come in the order they were asked
            server.close_round()  # aggregate, record
            if server.evaluation_is_due:
                server.eval()
                exchange.drain()  # clients evaluate: summaries, best round, early stopping
            server.close_evaluation()  # those who have not answered are not waited for
            exchange.drain()  # new ranks
            if not server.is_finish:
                self._check_progress(before)
        exchange.drain()  # everybody learns that it is over

    def _gather(self) -> None:
        """Clients join; the server knows them all before the first round."""
        for client in self.clients.values():
            client.join_in()
        self.exchange.drain()

    def _check_progress(self, before: int) -> None:
        if not self.server.rounds_left:
            # An extension's evaluation that does not end the course by itself.
            self.server.terminate(msg_type="finish")
        elif self.server.state == before:
            raise UserError(
                f"No client has answered in round {before + 1}, and none is under way any more. A "
                "client from outside has to send model_para, also where it does not train."
            )
