"""The building blocks of a self-contained page: style, tables, figures, escaping.

A page has no script and loads nothing: images are inlined, the style is in the head.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["Cell", "definitions", "document", "figure", "note", "section", "stat", "table"]

_STYLE = """
:root { --ink: #1f2933; --muted: #5b6672; --line: #dde2e7; --soft: #f5f7f9; --accent: #1b5e9b;
  --good: #2f6b3f; --warn: #8a5a00; --bad: #a32a2a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 64rem; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; font-weight: 650; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-bottom: .3rem; font-weight: 650;
  border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; max-width: 46rem; }
code, pre { font: .87em/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.sub, .hint, caption, figcaption { color: var(--muted); }
.sub { margin: 0; } .hint { font-size: .88rem; }
.status { display: inline-block; margin: .2rem 0 .5rem; padding: .1rem .6rem; border-radius: 3px;
  font-size: .88rem; font-weight: 600; color: #fff; background: var(--muted); }
.status.finished { background: var(--good); } .status.failed { background: var(--bad); }
.status.interrupted { background: var(--warn); }
.stats { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.3rem, 1fr)); gap: 0;
  margin: 1.4rem 0 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.stat { padding: .8rem .75rem; box-shadow: 1px 1px 0 var(--line); }
.stat b { display: block; white-space: nowrap; font-size: 1.3rem; font-weight: 620;
  font-variant-numeric: tabular-nums; }
.stat span { display: block; font-size: .84rem; font-weight: 600; }
.stat small { display: block; font-size: .8rem; line-height: 1.35; color: var(--muted); }
.stat.lead b { color: var(--accent); }
.note { margin: 1.2rem 0; padding: .7rem 1rem; background: var(--soft);
  border-left: 4px solid var(--muted); border-radius: 0 4px 4px 0; }
.note.warn { background: #fdf6e7; border-color: #d79a1e; }
.note.bad { background: #fbeeee; border-color: var(--bad); }
.note h2, .note h3 { margin: 0 0 .3rem; padding: 0; border: 0; font-size: 1rem; }
.note ul { margin: .2rem 0; padding-left: 1.2rem; } .note p { max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .88rem; padding-bottom: .35rem; }
th, td { padding: .28rem .55rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; } thead th { border-bottom: 1.5px solid var(--ink); }
.num { text-align: right; } td { white-space: normal; } td.num { white-space: nowrap; }
td:first-child { white-space: nowrap; }
tr.mean td, tr.mean th { font-weight: 650; background: var(--soft); }
td.up { color: var(--good); } td.down { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .25rem 1.2rem;
  margin: .6rem 0; } dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
dl.said dt { color: var(--ink); font-weight: 600; }
figure { margin: .8rem 0; } figure img { width: 100%; max-width: 56rem; height: auto; }
figcaption { font-size: .88rem; }
.bar { display: flex; height: .95rem; min-width: 12rem; border-radius: 2px; overflow: hidden;
  background: var(--soft); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar i { display: block; height: 100%; box-shadow: inset -1px 0 0 #fff; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .88rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem;
  vertical-align: -1px; border-radius: 2px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; margin: .5rem 0; }
@media print { body { font-size: 11px; padding: 0; max-width: none; } h2 { break-after: avoid; }
  figure, tr, .note, .stats { break-inside: avoid; } details > summary { display: none; } }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""


@dataclass(frozen=True)
class Cell:
    """A table cell: text, or markup that is safe already; ``tone`` is a CSS class."""

    text: str
    markup: bool = False
    tone: str = ""

    def render(self, numeric: bool) -> str:
        """The ``td`` element."""
        names = " ".join(name for name in ("num" if numeric else "", self.tone) if name)
        attribute = f' class="{names}"' if names else ""
        return f"<td{attribute}>{self.text if self.markup else escape(self.text)}</td>"


Value = str | Cell


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; ``title`` is plain text, ``body`` markup."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A headed section; nothing when all its parts are empty."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def paragraph(text: str, hint: bool = False) -> str:
    """A paragraph of plain text; a hint is smaller and paler."""
    if not text:
        return ""
    opening = '<p class="hint">' if hint else "<p>"
    return f"{opening}{escape(text)}</p>"


def note(title: str, content: str, tone: str = "") -> str:
    """A box that stands out; ``content`` is markup, ``tone`` ``""``, ``"warn"`` or ``"bad"``."""
    return f'<aside class="note {tone}"><h2>{escape(title)}</h2>{content}</aside>'


def bullets(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def definitions(pairs: Iterable[tuple[str, Value]], css: str = "") -> str:
    """Terms and what they are; pairs with an empty value are left out."""
    rows = []
    for term, value in pairs:
        cell = value if isinstance(value, Cell) else Cell(value)
        if cell.text:
            content = cell.text if cell.markup else escape(cell.text)
            rows.append(f"<dt>{escape(term)}</dt><dd>{content}</dd>")
    return f'<dl class="{css}">' + "".join(rows) + "</dl>" if rows else ""


def stat(value: str, label: str, detail: str = "", lead: bool = False) -> str:
    """One large figure with its name and a line of detail."""
    small = f"<small>{escape(detail)}</small>" if detail else ""
    css = "stat lead" if lead else "stat"
    return f'<div class="{css}"><b>{escape(value)}</b><span>{escape(label)}</span>{small}</div>'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Value]],
    caption: str = "",
    text_columns: Iterable[int] = (0,),
    means: Iterable[Sequence[Value]] = (),
) -> str:
    """A table; every column but ``text_columns`` is numeric, ``means`` are emphasised last rows."""
    texts = set(text_columns)
    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    heads = (
        f'<th scope="col"{"" if at in texts else " class=num"}>{escape(name)}</th>'
        for at, name in enumerate(columns)
    )
    lines.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for css, group in (("", rows), (' class="mean"', means)):
        for row in group:
            cells = (value if isinstance(value, Cell) else Cell(value) for value in row)
            rendered = "".join(cell.render(at not in texts) for at, cell in enumerate(cells))
            lines.append(f"<tr{css}>{rendered}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def figure(path: Path, description: str) -> str:
    """A PNG file, inlined; nothing when the file is not there."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    text = escape(description)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def bar(shares: Mapping[str, float], colors: Mapping[str, str], description: str) -> Cell:
    """A stacked bar of shares that add to one."""
    parts = "".join(
        f'<i style="width:{100 * share:.2f}%;background:{colors[name]}"></i>'
        for name, share in shares.items()
        if share > 0
    )
    text = escape(description)
    return Cell(
        f'<div class="bar" role="img" aria-label="{text}" title="{text}">{parts}</div>', True
    )


def color_key(colors: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Which colour is which label."""
    parts = (
        f'<span><i style="background:{color}"></i>{escape(names.get(label, label))}</span>'
        for label, color in colors.items()
    )
    return f'<div class="key">{"".join(parts)}</div>'
