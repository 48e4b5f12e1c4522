"""MkDocs hook: the style sheet of highlighted code, light and dark."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

STYLES = {"light": "default", "dark": "github-dark"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add theme/code.css, which mkdocs.yml names."""
    rules = [
        HtmlFormatter(style=style).get_style_defs(f"[data-bs-theme={mode}] .highlight")
        for mode, style in STYLES.items()
    ]
    files.append(File.generated(config, "theme/code.css", content="\n".join(rules)))
    return files
