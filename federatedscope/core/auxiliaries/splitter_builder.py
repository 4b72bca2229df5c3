"""The configured splitter."""

from __future__ import annotations

from typing import Any

from federatedscope.core.auxiliaries.resolve import look_up, resolve
from federatedscope.core.errors import ConfigError

__all__ = ["get_splitter"]


def get_splitter(config: Any) -> Any:
    """The splitter that ``data.splitter`` names, registered ones first; ``None`` where it is empty
    (data that come split by client). One that there is not, or that does not take these arguments,
    is a :class:`ConfigError`.
    """
    name, client_num = config.data.splitter, config.federate.client_num
    if not name:
        return None
    arguments = _arguments(config.data.splitter_args)
    if client_num < 1:
        problem = "the rows are to be spread over at least one client"
        remedy = "Write federate.client_num: 3, for example"
        raise ConfigError("federate.client_num", client_num, problem, remedy)

    def built_in() -> Any:
        # Not at the top: splitters use the data helpers, and the data package this builder.
        from federatedscope.core.splitters.generic import IIDSplitter, LDASplitter, MetaSplitter

        classes = {"iid": IIDSplitter, "lda": LDASplitter, "meta": MetaSplitter}
        splitter_cls: Any = look_up("splitter", "data.splitter", name, classes)
        try:
            # An alpha that is left over from lda has no meaning for iid, as in FederatedScope.
            return splitter_cls(client_num, **({} if name == "iid" else arguments))
        except TypeError as error:
            raise ConfigError(
                "data.splitter_args",
                config.data.splitter_args,
                f"the splitter {name} does not take these arguments ({error})",
                "Write for example data.splitter_args: [{'alpha': 0.5}] with data.splitter: lda",
            ) from error

    return resolve("splitter", built_in, name, client_num, **arguments)


def _arguments(given: Any) -> dict[str, Any]:
    """``data.splitter_args`` as keyword arguments; one mapping, without what no splitter takes."""
    problem = remedy = ""
    if len(given) > 1:
        problem = f"the list has {len(given)} mappings, and a splitter takes one"
        remedy = "Write all arguments into one mapping: [{'alpha': 0.5, 'fill': True}]"
    arguments = dict(given[0]) if given else {}
    if "client_num" in arguments:
        problem = "client_num is no argument of a splitter: every splitter is given the run's own"
        remedy = "Leave it out here, and write federate.client_num"
    elif "name" in arguments:
        problem = "name is no argument of a splitter: its name is data.splitter"
        remedy = "Leave it out here, and write data.splitter"
    if problem:
        raise ConfigError("data.splitter_args", [dict(entry) for entry in given], problem, remedy)
    return arguments
