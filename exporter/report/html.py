"""The report as an HTML page that fetches and runs nothing, drawn from its Markdown form."""

from __future__ import annotations

from html import escape

from markdown_it import MarkdownIt

from exporter.records import Report
from exporter.report.formatting import printable
from exporter.report.markdown import draw_markdown
from exporter.report.sections import report_sections

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body class="{verdict}">
{body}</body>
</html>
"""

_STYLE = """:root { color-scheme: light dark; --line: #8884; --good: #18794e; --bad: #c62a2f; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff6369; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; padding-left: 0.8rem; border-left: 0.4rem solid var(--line); }
.good h1 { border-color: var(--good); }
.bad h1 { border-color: var(--bad); }
h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin-bottom: 0.3rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.9rem 0.25rem 0; }
th { text-align: left; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; vertical-align: top; }
td[style] { white-space: nowrap; }
td strong { color: var(--bad); }
code { font: 0.9em ui-monospace, monospace; }
p, li { overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: 0.6rem; border: 1px solid var(--line); }
"""


def to_html(report: Report) -> str:
    """One self-contained file with the sections of the report.

    Text from model files cannot become markup: raw HTML is escaped, and the page's own policy
    forbids it to load anything.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link"])
    sections = report_sections(report)
    return _PAGE.format(
        title=escape(printable(sections[0].title)),
        style=_STYLE,
        verdict=sections[0].style,
        body=parser.render(draw_markdown(sections)),
    )
