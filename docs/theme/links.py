"""MkDocs hook: links from the documents to the rest of the repository lead to pages of the site.

The documents link to source files, as GitHub shows them. On the site every file that is linked to becomes a page with
its text, every folder one that lists its files, and CONTRIBUTING.md and CHANGELOG.md are pages like those in docs/.
"""

from __future__ import annotations

import ast
import html
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md")  # documents outside docs/
_LITERAL = {ord(c): f"&#{ord(c)};" for c in "|[]*_`"}  # letters that would be Markdown
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
_FENCED = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file and folder of the repository that a document links to."""
    for name in TEXTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"project/{name}", content=text))
    linked = {
        place
        for file in files.documentation_pages()
        for target in _LINK.findall(_FENCED.sub("", file.content_string))
        if (place := _outside(file.src_uri, target))
    }
    for place in sorted(linked - set(TEXTS)):
        files.append(File.generated(config, _page(place), content=_shown(place, linked)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ to links to their pages."""
    here = page.file.src_uri

    def replaced(link: re.Match[str]) -> str:
        if link[0].startswith("#"):
            return link[0]
        place = _outside(here, link[0])
        if place is None and not here.startswith("project/"):
            return link[0]
        if place is None:
            return link[0] if ":" in link[0] else _relative(link[0].removeprefix("docs/"), here)
        return _relative(_page(place), here)

    parts, end = [], 0
    for fence in _FENCED.finditer(markdown):
        parts += [_LINK.sub(replaced, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replaced, markdown[end:])])


def on_post_build(config: MkDocsConfig) -> None:
    """Leave source files out of the search."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["docs"] = [entry for entry in content["docs"] if not entry["location"].startswith("source/")]
    index.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _repository_path(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return src_uri.removeprefix("project/") if src_uri.startswith("project/") else f"docs/{src_uri}"


def _outside(src_uri: str, target: str) -> str | None:
    """What a link leads to, if that is a part of the repository outside docs/."""
    file = target.partition("#")[0]
    if not file or ":" in file:
        return None
    place = posixpath.normpath(posixpath.join(posixpath.dirname(_repository_path(src_uri)), file))
    return None if place.startswith(("docs/", "..")) or not (ROOT / place).exists() else place


def _page(place: str) -> str:
    if place in TEXTS:
        return f"project/{place}"
    return f"source/{place}.md" if (ROOT / place).is_file() else f"source/{place}/index.md"


def _relative(src_uri: str, here: str) -> str:
    return posixpath.relpath(src_uri, posixpath.dirname(here) or ".")


def _shown(place: str, linked: set[str]) -> str:
    path = ROOT / place
    head = f"# {place}\n\n"
    if path.is_file():
        language = {".py": "python", ".h": "c"}.get(path.suffix, "text")
        return f"{head}``````{language}\n{path.read_text(encoding='utf-8')}``````\n"
    rows = [_row(file, linked) for file in sorted(path.glob("*.py")) if file.name != "__init__.py"]
    return f"{head}| file | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _row(file: Path, linked: set[str]) -> str:
    place = file.relative_to(ROOT).as_posix()
    said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    name = f"[`{file.name}`]({file.name}.md)" if place in linked else f"`{file.name}`"
    return f"| {name} | {html.escape(said).translate(_LITERAL)} |"
