"""Links of pages that are read in two places: on the code host, as files of the repository, and on the site."""

import posixpath
import re
from pathlib import Path

REPOSITORY = "https://github.com/jaxdiff/jaxdiff"
ABOVE = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "SPEEDRUN.md": "speedrun.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}  # which are pages too
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)")


def source_of(page: str) -> str:
    """The file of the repository that a page is made of."""
    return {address: file for file, address in ABOVE.items()}.get(page, f"docs/{page}")


def relinked(text: str, page: str, root: Path) -> str:
    """The Markdown of a page, whose links lead to other pages, or to the code host where there is none."""

    def leads(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source_of(page)), match[2]))
        if "://" in match[2] or not (path in ABOVE or path.startswith("docs/") or (root / path).exists()):
            return match[0]
        if path not in ABOVE and not path.startswith("docs/"):
            return f"{match[1]}{REPOSITORY}/blob/main/{path}"
        there = ABOVE.get(path, path.removeprefix("docs/"))
        return match[1] + posixpath.relpath(there, posixpath.dirname(page) or ".")

    return LINK.sub(leads, text)
