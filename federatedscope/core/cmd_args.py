"""The command line: flags, then ``section.key value`` pairs, in any order.

``--cfg FILE [--client_cfg FILE] [section.key value ...] [client_1.section.key value ...]``
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from federatedscope import register
from federatedscope.core.configs.node import CN
from federatedscope.core.configs.values import nearest_keys
from federatedscope.core.errors import UserError

__all__ = ["CommandLine", "check_presets", "help_text", "parse_args", "parse_client_cfg"]

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_CLIENT = re.compile(r"client_\d+\.")


@dataclass(frozen=True)
class CommandLine:
    """What the command line asks for, by flag.

    Attributes
    ----------
    opts : list of str
        ``[key, value, key, value, ...]`` for the run.
    client_opts : list of str
        The same for single clients: keys start with ``client_N.``.
    presets : list of str
        Other flags, without dashes: names of registered presets (checked by
        :func:`check_presets` once the extensions are imported).
    help : str or None
        ``"all"``, or a section whose keys are to be listed.
    local_rank : int
        From a launcher; -1 without one.
    """

    cfg_file: str | None = None
    client_cfg_file: str | None = None
    outdir: str | None = None
    opts: list[str] = field(default_factory=list)
    client_opts: list[str] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    check: bool = False
    quiet: bool = False
    version: bool = False
    help: str | None = None
    local_rank: int = -1


class _Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        """Raise the parser's complaint as a :class:`UserError`."""
        raise UserError(f"Command line: {message}. --help lists the flags.")


def _parser() -> _Parser:
    """The flags."""
    parser = _Parser(
        prog="python federatedscope/main.py",
        usage="%(prog)s --cfg FILE [flags] [section.key value ...] [client_1.section.key value ..]",
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--cfg", dest="cfg_file", metavar="FILE", help="yaml file of the run")
    add("--client_cfg", dest="client_cfg_file", metavar="FILE", help="yaml with client_N: settings")
    add("--outdir", metavar="DIR", help="short for: outdir DIR")
    add("--check", action="store_true", help="check the configuration, run nothing")
    add("--quiet", action="store_true", help="print results only")
    add("--version", action="store_true", help="print the version")
    add("--help", "-h", nargs="?", const="all", metavar="SECTION", help="this, or a section's keys")
    add("--local_rank", "--local-rank", type=int, default=-1, help=argparse.SUPPRESS)
    return parser


_TAKES_VALUE = ("--cfg", "--client_cfg", "--outdir", "--local_rank", "--local-rank")
_PLAIN = ("--check", "--quiet", "--version")
_HELP = ("--help", "-h")


def parse_args(argv: Sequence[str]) -> CommandLine:
    """Read the command line (without the program's name).

    A key without a value, a value without a key and a flag that looks like a key are each a
    :class:`UserError` that says what to write.
    """
    flags: list[str] = []
    presets: list[str] = []
    pairs: list[tuple[str, str]] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        if _is_flag(token):
            _take_flag(token, tokens, flags, presets)
        else:
            pairs.append(_take_pair(token, tokens, pairs))
    known = _parser().parse_args(flags)
    opts, client_opts = parse_client_cfg([part for pair in pairs for part in pair])
    return CommandLine(opts=opts, client_opts=client_opts, presets=presets, **vars(known))


def parse_client_cfg(arg_opts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide ``[key, value, ...]`` into the run's pairs and those of single clients."""
    common: list[str] = []
    single: list[str] = []
    for key, value in zip(arg_opts[0::2], arg_opts[1::2], strict=True):
        (single if _CLIENT.match(key) else common).extend((key, value))
    return common, single


def _is_flag(token: str) -> bool:
    """``--word`` or ``-h``; a negative number is not one."""
    return token in _HELP or (token.startswith("--") and token[2:3].isalpha())


def _take_flag(token: str, tokens: list[str], flags: list[str], presets: list[str]) -> None:
    """Move one flag, and its value where it takes one, to ``flags`` or ``presets``."""
    name, equals, value = token.partition("=")
    if name in (*_TAKES_VALUE, *_PLAIN, *_HELP):
        flags.append(token)
        following = "" if equals or not tokens else tokens[0]
        takes = not _is_flag(following) if name in _TAKES_VALUE else _KEY.fullmatch(following)
        if following and takes and name not in _PLAIN:
            flags.append(tokens.pop(0))
    elif "." in name or equals:
        shown = f"{name[2:]} {value}" if equals else f"{name[2:]} VALUE"
        raise UserError(f"{token}: keys are written without dashes. Write: {shown}")
    else:
        presets.append(name[2:])


def _take_pair(token: str, tokens: list[str], before: list[tuple[str, str]]) -> tuple[str, str]:
    """One ``key value`` or ``key=value``."""
    if token.endswith((".yaml", ".yml")) and "=" not in token:
        raise UserError(f"{token}: a file is given with a flag. Write: --cfg {token}")
    key, equals, value = token.partition("=")
    if not _KEY.fullmatch(key):
        after = f" after '{' '.join(before[-1])}'" if before else ""
        raise UserError(
            f"{token!r}{after} is not the name of a key. Write pairs such as 'federate.client_num"
            " 3'; a value with blanks or brackets needs quotes around it."
        )
    if equals:
        return key, value
    if not tokens or _is_flag(tokens[0]):
        raise UserError(f"{key} has no value. Write: {key} VALUE")
    return key, tokens.pop(0)


def check_presets(presets: Sequence[str]) -> None:
    """Refuse a flag that no registered preset answers to, naming the nearest known one and all."""
    for name in presets:
        if name in register.preset_dict:
            continue
        flags = sorted(f for f in (*_TAKES_VALUE, *_PLAIN, "--help") if "local" not in f)
        flags += [f"--{preset}" for preset in sorted(register.preset_dict)]
        near = difflib.get_close_matches(f"--{name}", flags, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        if not register.preset_dict:
            hint += " (--embedded comes with federatedscope_ext: keep it in extensions.)"
        raise UserError(f"--{name}: unknown flag.{hint} Flags: {', '.join(flags)}.")


def help_text(cfg: CN, section: str = "all") -> str:
    """The help: the flags and the sections, or the keys of one section. Where there is no such
    section or key, a :class:`UserError` that names similar ones.
    """
    if section == "all":
        return "\n".join(_overview(cfg))
    keys = [item for item in cfg.walk() if f"{item[0]}.".startswith(f"{section}.")]
    if not keys:
        near = nearest_keys(section, [*_sections(cfg), *(name for name, _, _ in cfg.walk())])
        hint = f" Did you mean {' or '.join(near)}?" if near else " --help lists the sections."
        raise UserError(f"--help {section}: no such section or key.{hint}")
    lines = []
    for name, info, value in keys:
        choices = f" [{', '.join(map(str, info.choices))}]" if info.choices else ""
        lines.append(f"{name} = {value!r}\n    {info.help}{choices}")
    return "\n".join(lines)


def _overview(cfg: CN) -> Iterator[str]:
    """Flags, presets and sections, one per line."""
    yield _parser().format_help().rstrip()
    for name, preset in sorted(register.preset_dict.items()):
        summary = (preset.__doc__ or "").strip().split("\n")[0]
        yield f"  --{name:<20} {summary}"
    yield "\nsections (--help SECTION lists the keys):"
    for name, summary in _sections(cfg).items():
        yield f"  {name:<20} {summary}"


def _sections(cfg: CN) -> dict[str, str]:
    """First-level sections with their descriptions."""
    return {key: cfg.info(key).help for key, value in cfg.items() if isinstance(value, CN)}
