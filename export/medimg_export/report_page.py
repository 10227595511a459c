"""The page of a report: one HTML file with its style inside, and the parts that it is made of.

What is plain text is escaped here; ``body``, ``parts`` and ``svg`` are HTML already.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files


def page(title: str, facts: list[tuple[str, str]], body: str) -> str:
    """The whole of it: head, facts, the banner, and ``body``."""
    style = files("medimg_export").joinpath("report.css").read_text(encoding="utf-8")
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl class="facts">{rows}</dl>
</header>
<p class="banner" role="note"><strong>Decision support, not a diagnosis.</strong>
These numbers hold for images like those it was evaluated on. A qualified reader decides.</p>
<main>
{body}
</main>
</body>
</html>
"""


def section(name: str, heading: str, *parts: str) -> str:
    """A part of the page under its heading."""
    content = "\n".join(parts)
    return f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>'


def pair(left: str, right: str, *, stacked: bool = False) -> str:
    """Two things side by side, or ``stacked`` where the left one is wide."""
    return f'<div class="{"stack" if stacked else "pair"}">{left}{right}</div>'


def figure(svg: str, heading: str = "", note: str = "") -> str:
    """A plot under its heading, with a note below."""
    title = f"<h3>{heading}</h3>" if heading else ""
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f'<figure class="plot">{title}{svg}{caption}</figure>'


def bullets(items: Sequence[str]) -> str:
    """A list of plain text."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
