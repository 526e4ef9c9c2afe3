"""What the site adds to MkDocs: links that leave docs/ work on the site too, and formulas are MathML.

Pages link to files of the repository by relative paths, so that they can be read there as well. Such a file, and what
it links to in turn, becomes a part of the site. Formulas are turned into MathML when the site is built: a reader needs
no script and no network for them.
"""

import html
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from latex2mathml import converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
#: Pages from outside docs/ that the navigation has.
INCLUDED = ("CHANGELOG.md", "CONTRIBUTING.md", "HACKING.md")
#: A Markdown link or image: its text and its target.
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the pages reach outside docs/."""
    waiting = [DOCS + file.src_uri for file in files.documentation_pages()] + list(INCLUDED)
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        if not page.startswith(DOCS):
            files.append(File(page, str(ROOT), config.site_dir, config.use_directory_urls))
        if page.endswith(".md"):
            found = {_resolve(page, match["target"]) for match in LINK.finditer((ROOT / page).read_text())}
            new = {path for path in found if path and not path.startswith(DOCS)} - seen
            seen |= new
            waiting += new
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at where their files are on the site; a folder without a README has no place there."""
    uri = page.file.src_uri
    here = uri if page.file.src_dir == str(ROOT) else DOCS + uri

    def pointed(match: re.Match[str]) -> str:
        target = _resolve(here, match["target"])
        if target is None:
            return match[0]
        if target == "":
            return match["text"]
        place = posixpath.relpath(target.removeprefix(DOCS), posixpath.dirname(uri) or ".")
        fragment = urlsplit(match["target"]).fragment
        return f"[{match['text']}]({place}{'#' + fragment if fragment else ''})"

    return LINK.sub(pointed, markdown)


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    formula = html.unescape(match[2]).strip()
    return converter.convert(formula[2:-2].strip(), display="block" if match[1] == "div" else "inline")


def _resolve(page: str, target: str) -> str | None:
    """A link's file, from the root of the repository. None: a place on the page, or elsewhere. "": a bare folder."""
    parts = urlsplit(target)
    if parts.scheme or not parts.path:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), parts.path))
    if not (ROOT / path).is_dir():
        return path
    readme = posixpath.join(path, "README.md")
    return readme if (ROOT / readme).exists() else ""
