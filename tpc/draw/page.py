"""A self-contained HTML page: no request leaves it; light and dark follow the reader's setting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

LARGER = 1.5  # than its own size a drawing becomes at most, where there is room

CSS = """
:root{color-scheme:light dark;
--ink:#1c1c1c;--page:#fff;--soft:#f4f5f6;--line:#d5d8dc;--faint:#5a6068;--accent:#1f5fa8}
@media (prefers-color-scheme:dark){:root{
--ink:#ececec;--page:#16191d;--soft:#1f242a;--line:#39404a;--faint:#a4acb6;--accent:#8bbdf2}}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.2rem;margin:2em 0 .5em;border-bottom:1px solid var(--line)}
p.note{color:var(--faint);margin:.3em 0 .8em}nav a{margin-right:1em}a{color:var(--accent)}
pre{background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:12px;
white-space:pre-wrap;overflow-wrap:anywhere;
font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:3px 12px 3px 0;text-align:left;vertical-align:top}
td{font-variant-numeric:tabular-nums}th{color:var(--faint);font-weight:500}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.card{flex:1 0 calc(100%/var(--wide) - 12px);box-sizing:border-box;
background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:10px 16px}
@media (max-width:820px){.card{flex-basis:calc(100%/var(--narrow) - 12px)}}
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.card span{color:var(--faint);font-size:.85rem}
.wide{overflow-x:auto}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:0 20px}
.columns>*{min-width:0}figure{margin:0}
summary{cursor:pointer;color:var(--accent);margin:.8em 0}
figure svg{display:block;width:100%;height:auto}
h3{font-size:1rem;margin:1.2em 0 .4em}
pre.numbered>span{display:block;min-height:1.45em;padding-left:10ch;text-indent:-10ch}
pre.numbered :is(i,a){display:inline-block;width:8ch;text-align:right;text-indent:0;margin-right:2ch;
color:var(--faint);font-style:normal;user-select:none}pre.numbered a{color:var(--accent)}
details pre.numbered{max-height:40em;overflow-y:auto}
b.space{font-weight:400;font-style:italic;color:var(--accent)}
b.axis{font-weight:400;text-decoration:underline dotted;text-underline-offset:3px}
pre.numbered span:target{background:color-mix(in srgb,var(--accent) 25%,transparent)}
math{font-size:1.08em}.formula math{margin:.18em 0}
.equation{display:flex;align-items:center;gap:1em;padding:4px 0}
.equation>:first-child{flex:1;min-width:0;overflow-x:auto}.equation .number{flex:none;color:var(--faint)}
.kernel{border-top:1px solid var(--line);margin-top:1em}.kernel .columns>:first-child{overflow-x:auto}
.steps{width:100%}.steps td:last-child{width:100%;max-width:0;overflow-x:auto}.steps td{padding-bottom:8px}
.law{color:var(--faint);font-size:.92em}
[role=alert]{border-left:4px solid #c44f4f;padding:4px 12px;background:var(--soft)}
""".strip()


def page(title: str, body: Sequence[str], extra_css: str = "", whole: bool = False) -> str:
    """The whole document; `whole` for one that fills the window."""
    top, end = ('<body class="whole">', "</body>") if whole else ("<body><main>", "</main></body>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>{CSS}\n{extra_css}</style></head>\n{top}\n"
        + "\n".join(body)
        + f"\n{end}</html>\n"
    )


def section(anchor: str, title: str, note: str, *content: str) -> str:
    """A heading with a sentence below it, then the content (HTML)."""
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{told}\n' + "\n".join(content) + "\n</section>"


def cards(facts: Mapping[str, str]) -> str:
    """Large figures with a word below each."""
    wide, narrow = (_columns(len(facts), most) for most in (6, 4))
    each = (f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in facts.items())
    return f'<div class="cards" style="--wide:{wide};--narrow:{narrow}">{"".join(each)}</div>'


def _columns(count: int, most: int) -> int:
    """So many tiles in a row that the rows are as equal as can be."""
    rows = -(-count // most)
    return max(1, -(-count // max(rows, 1)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def code(text: str, title: str = "") -> str:
    """A listing."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"<div>{head}<pre>{escape(text.rstrip())}</pre></div>"


def figure(svg: str, css: str = "") -> str:
    """An inline SVG drawing."""
    start = svg.find("<svg")  # an XML declaration has no place inside HTML
    size = re.search(r'viewBox="\S+ \S+ (\S+) \S+"', svg)
    limit = f' style="max-width:{LARGER * float(size[1]):.0f}pt"' if size else ""
    return f'<figure class="{css}"{limit}>{svg[start:]}</figure>'


def numbered_equation(anchor: str, number: int, content: str) -> str:
    """A formula (HTML) with its number in a column of its own."""
    return f'<div class="equation" id="{anchor}"><div>{content}</div><span class="number">({number})</span></div>'


def folded(title: str, content: str) -> str:
    """Content that the reader opens."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
