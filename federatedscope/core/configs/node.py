"""The configuration tree: :class:`CN`, a dict with attribute access, and :class:`Argument`."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any

from federatedscope.core.configs import values
from federatedscope.core.configs.merging import Origin, nest, some_keys, unknown_key
from federatedscope.core.configs.values import KeyInfo
from federatedscope.core.configs.yaml_io import dump_yaml, parse_yaml, read_yaml_file
from federatedscope.core.errors import ConfigError, UserError, is_user_error

__all__ = ["BOOKKEEPING", "CN", "Argument"]

logger = logging.getLogger(__name__)

# fmt: off
BOOKKEEPING = (
    "cfg_check_funcs", "__cfg_check_funcs__", "help_info", "__help_info__", "is_ready_for_run",
)
# fmt: on
"""Internal entries of FederatedScope's configurations; they are skipped."""

_STATE = ("_frozen", "_new_allowed", "_checks", "_info", "_applied", "_ready")


class Argument:
    """A default value with its description, as extensions write it.

    Parameters
    ----------
    default_value : object
        The value; assigning the argument to a key stores this value.
    description : str
        One line for ``--help`` and the reference.
    required_type : type, optional
        Type to accept; the default's own type when not given.
    required : bool
        Whether running without a value (``None``) is reported.
    """

    def __init__(
        self,
        default_value: Any = None,
        description: str = "",
        required_type: type | None = None,
        required: bool = False,
    ) -> None:
        self.value = default_value
        self.description = description
        self.required = required
        self.type = required_type if required_type is not None else type(default_value)

    def __repr__(self) -> str:
        return f"Argument({self.value!r}, {self.description!r})"

    def info(self) -> KeyInfo:
        """The key's metadata in the form the tree keeps."""
        types = () if self.type is type(None) else (self.type,)
        return KeyInfo(help=self.description, types=types, required=self.required)


class CN(dict[str, Any]):
    """A node of the configuration: a dict whose keys are attributes too.

    Parameters
    ----------
    init_dict : mapping, optional
        Initial content; nested mappings become nodes.
    key_list : list of str, optional
        Accepted for compatibility and not used.
    new_allowed : bool
        Whether merging may add keys that the node does not have.

    Notes
    -----
    Values keep the type that the key was declared with. A merge is all or nothing: every value is
    checked before the first one is written.
    """

    def __init__(
        self,
        init_dict: Mapping[str, Any] | None = None,
        key_list: list[str] | None = None,
        new_allowed: bool = False,
    ) -> None:
        super().__init__()
        self.__dict__.update(
            _frozen=False, _new_allowed=new_allowed, _checks=[], _info={}, _applied={}, _ready=False
        )
        for key, value in (init_dict or {}).items():
            self[str(key)] = value

    # ------------------------------------------------------------------ attribute access
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _STATE:
            raise AttributeError(f"{name} belongs to the configuration node itself")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        del self[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self._require_mutable(key)
        if isinstance(value, Argument):
            self._info[key] = value.info()
            value = value.value
        if isinstance(value, dict) and not isinstance(value, CN):
            value = type(self)(value, new_allowed=self._new_allowed)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._require_mutable(key)
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several keys, as ``dict.update`` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value, as ``dict.pop`` does."""
        self._require_mutable(key)
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Value of a key, set to ``default`` first where it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def _require_mutable(self, key: str) -> None:
        if self._frozen:
            raise AttributeError(f"The configuration is frozen: {key} cannot be changed.")

    # ------------------------------------------------------------------ copies and output
    def __deepcopy__(self, memo: dict[int, Any]) -> CN:
        items = {key: copy.deepcopy(value, memo) for key, value in self.items()}
        return _restore(type(self), items, {k: copy.copy(v) for k, v in self.__dict__.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), dict(self), dict(self.__dict__)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict.__repr__(self)})"

    def __str__(self) -> str:
        return self.dump().rstrip("\n")

    def clone(self) -> CN:
        """A deep copy, with the checks and descriptions."""
        return copy.deepcopy(self)

    def to_dict(self) -> dict[str, Any]:
        """The tree as plain nested dicts, lists and scalars (copies)."""
        return {key: values.plain(value) for key, value in self.items()}

    def dump(self, **kwargs: Any) -> str:
        """Yaml text of the tree; loading it gives the same values."""
        return dump_yaml(self.to_dict(), **kwargs)

    # ------------------------------------------------------------------ loading and merging
    @classmethod
    def load_cfg(cls, cfg_file_obj_or_str: IO[str] | str | PathLike[str]) -> CN:
        """A tree from an open yaml file, yaml text, or the path of a yaml file.

        The tree has no declared types and allows new keys.
        """
        source = cfg_file_obj_or_str
        if isinstance(source, str) and ("\n" in source or not source.endswith((".yaml", ".yml"))):
            tree, _ = parse_yaml(source)
        elif isinstance(source, (str, PathLike)):
            tree, _ = read_yaml_file(Path(source))
        else:
            tree, _ = parse_yaml(source.read(), str(getattr(source, "name", "<file>")))
        return cls(tree, new_allowed=True)

    def merge_from_file(self, cfg_filename: str | PathLike[str], check_cfg: bool = False) -> None:
        """Merge a yaml file, and run the registered checks afterwards where ``check_cfg`` is on.

        Checks are for a complete configuration, see :meth:`assert_cfg` and :meth:`freeze`.

        Raises
        ------
        ConfigError
            Unknown key, wrong type, value outside the choices, missing file or bad syntax; names
            key, file and line. Nothing is merged then.
        """
        tree, lines = read_yaml_file(Path(cfg_filename))
        self._merge(tree, Origin(str(cfg_filename), lines))
        self.assert_cfg(check_cfg)

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any], check_cfg: bool = False) -> None:
        """Merge another tree (or nested dict); same rules as :meth:`merge_from_file`."""
        self._merge(cfg_other, Origin())
        self.assert_cfg(check_cfg)

    def merge_from_list(self, cfg_list: Sequence[Any], check_cfg: bool = False) -> None:
        """Merge ``[dotted key, value, dotted key, value, ...]``.

        Text values are read as on the command line: Python or yaml literals, text where the key
        is text.
        """
        self._merge(nest(cfg_list), Origin())
        self.assert_cfg(check_cfg)

    def _merge(self, source: Mapping[str, Any], origin: Origin) -> None:
        """Check every value first, then write all of them."""
        for node, key, value in list(self._planned(source, "", self, origin)):
            node[key] = value

    def _planned(
        self, source: Mapping[str, Any], prefix: str, root: CN, origin: Origin
    ) -> Iterator[tuple[CN, str, Any]]:
        """Yield ``(node, key, checked value)`` for everything in ``source``."""
        for raw_key, raw_value in source.items():
            key = str(raw_key)
            dotted = f"{prefix}{key}"
            value = raw_value.value if isinstance(raw_value, Argument) else raw_value
            if key not in self:
                if key in BOOKKEEPING:
                    continue
                if not self._new_allowed:
                    raise unknown_key(dotted, value, root, origin)
                yield self, key, values.free_value(value)
                continue
            current = self[key]
            if not isinstance(current, CN):
                info = self._info.get(key) or values.info_of_value(current)
                yield self, key, values.coerce(dotted, value, info, current, origin.of(dotted))
            elif (section := values.as_mapping(value)) is not None:
                yield from current._planned(section, f"{dotted}.", root, origin)
            else:
                problem = f"{dotted} is a section, not a single value{origin.of(dotted)}"
                remedy = f"Give one of its keys: {some_keys(current, dotted)}"
                raise ConfigError(dotted, values.shown(value), problem, remedy)

    # ------------------------------------------------------------------ state
    def is_new_allowed(self) -> bool:
        """Whether merging may add keys to this node."""
        return bool(self._new_allowed)

    def set_new_allowed(self, is_new_allowed: bool) -> None:
        """Allow or forbid new keys in this node and every node below."""
        self._set("_new_allowed", is_new_allowed)

    def is_frozen(self) -> bool:
        """Whether the node refuses changes."""
        return bool(self._frozen)

    def freeze(self, inform: bool = True, save: bool = True, check_cfg: bool = True) -> None:
        """Run the checks and make the tree immutable.

        Parameters
        ----------
        inform, save : bool
            Accepted for compatibility; printing and saving the configuration belong to the
            command (see :func:`~federatedscope.core.configs.config.write_config`).
        check_cfg : bool
            Run the registered checks first.
        """
        self.ready_for_run(check_cfg)
        self._set("_frozen", True)

    def defrost(self) -> None:
        """Make the tree mutable again."""
        self._set("_frozen", False)

    def _set(self, name: str, value: bool) -> None:
        """Change a part of the state here and in every node below."""
        self.__dict__[name] = value
        for below in self.values():
            if isinstance(below, CN):
                below._set(name, value)

    # ------------------------------------------------------------------ checks
    def register_cfg_check_fun(self, cfg_check_fun: Callable[[CN], object]) -> None:
        """Add a check ``f(cfg)`` that :meth:`assert_cfg` runs; the same function once only."""
        if cfg_check_fun not in self._checks:
            self._checks.append(cfg_check_fun)

    def assert_cfg(self, check_cfg: bool = True) -> None:
        """Run the registered checks, in the order of registration."""
        for check in list(self._checks) if check_cfg else ():
            try:
                check(self)
            except (ValueError, AssertionError) as error:
                # Extensions' checks complain with plain ValueErrors, or assert as
                # FederatedScope's do.
                if is_user_error(error) or check.__module__.startswith(__package__):
                    raise
                text = str(error) or f"The check {check.__module__}.{check.__name__} failed."
                raise UserError(text) from error

    def ready_for_run(self, check_cfg: bool = True) -> None:
        """Run the checks, report required keys without a value, mark the tree as ready."""
        self.assert_cfg(check_cfg)
        for dotted, info, value in self.walk():
            if info.required and value is None:
                logger.warning("The required key %s has no value.", dotted)
        self.__dict__["_ready"] = True

    @property
    def is_ready_for_run(self) -> bool:
        """Whether :meth:`ready_for_run` has completed on this tree."""
        return bool(self._ready)

    # ------------------------------------------------------------------ descriptions
    def describe(
        self,
        key: str,
        info: KeyInfo | str,
        choices: tuple[Any, ...] = (),
        of_client: bool = False,
    ) -> None:
        """Attach description, accepted types and choices to one key of this node.

        ``info`` is all of it; or, the form for extensions, the line of help, with the key's present
        value as default, its type as the accepted one, ``choices`` as accepted values, and whether
        clients read it for themselves (``of_client``), so that it may differ between them.
        """
        if isinstance(info, str):
            value = self[key]
            types = () if isinstance(value, CN) else (type(value),)
            info = values.KeyInfo(info, types, choices, False, True, value, of_client)
        self._info[key] = info

    def info(self, key: str) -> KeyInfo:
        """Description, types and choices of one key of this node."""
        return self._info.get(key) or values.info_of_value(self.get(key))

    def walk(self, prefix: str = "") -> Iterator[tuple[str, KeyInfo, Any]]:
        """``(dotted key, info, value)`` of every leaf below this node, in order."""
        for key, value in self.items():
            if isinstance(value, CN):
                yield from value.walk(f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", self.info(key), value

    def print_help(self, arg_name: str = "") -> None:
        """Print the keys with their descriptions; only those that start with ``arg_name``."""
        for dotted, info, value in self.walk():
            if not arg_name or dotted == arg_name or dotted.startswith(f"{arg_name}."):
                sys.stdout.write(f"  {dotted} = {value!r}\n      {info.help}\n")


def _restore(cls: type[CN], items: dict[str, Any], state: dict[str, Any]) -> CN:
    """Rebuild a node from its parts (copying between processes)."""
    node = cls()
    for key, value in items.items():
        dict.__setitem__(node, key, value)
    node.__dict__.update(state)
    return node
