"""The page at `/`: what this is and where its faces are. It shows nothing that needs a right."""

from __future__ import annotations

from html import escape

from taut import __version__

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>taut</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem; color: #1c2733 }}
code {{ background: #eef2f5; padding: .1rem .3rem; border-radius: .2rem }}
td {{ padding: .2rem 1rem .2rem 0; vertical-align: top }}
@media (prefers-color-scheme: dark) {{ body {{ background: #11181f; color: #dbe4ec }} code {{ background: #22303c }}
a {{ color: #8fc7ff }} }}
</style></head><body>
<h1>taut {version}</h1>
<p>The control plane answers here. Everything that it does needs an identity; on the machine of the installation the
command line is the shortest way in.</p>
<table>{rows}</table>
</body></html>
"""

_ROWS = (
    ("<code>taut status</code>", "what is live, at a glance"),
    ("<code>taut why ID</code>", "from an answer back to the rows that trained its model"),
    ("<code>taut doctor</code>", "what is wrong here, and how to mend it"),
    ('<a href="/openapi.json">/openapi.json</a>', "the API, all of it"),
    ('<a href="/readyz">/readyz</a> <a href="/livez">/livez</a>', "health"),
    ('<a href="/metrics">/metrics</a>', "for Prometheus"),
)


def status_page() -> str:
    rows = "".join(f"<tr><td>{left}</td><td>{escape(right)}</td></tr>" for left, right in _ROWS)
    return _PAGE.format(version=escape(__version__), rows=rows)
