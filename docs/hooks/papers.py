"""Which modules name which paper, beside the list in docs/papers.md."""

import re
from pathlib import Path

from reference import FOLDERS

NAMED = re.compile(r"[^\W\d_]+ (?:et al\.|& [^\W\d_]+) (?:19|20)\d\d")
ROW = re.compile(r"^\| (.+? \d{4}) \| (.+) \|$", re.MULTILINE)


def texts(root: Path) -> dict[str, str]:
    """The source of each module, without line breaks."""
    paths = (path for folder in FOLDERS for path in sorted((root / "jaxdiff" / folder).rglob("*.py")))
    names = {".".join(path.relative_to(root / "jaxdiff").with_suffix("").parts): path for path in paths}
    return {name: re.sub(r"\s*#?\s+", " ", path.read_text(encoding="utf-8")) for name, path in names.items()}


def unlisted(page: str, root: Path) -> list[str]:
    """Papers that a module names, and the page does not."""
    listed = {match[1] for match in ROW.finditer(page)}
    found = {paper for text in texts(root).values() for paper in NAMED.findall(text)}
    return [f"docs/papers.md lacks {paper}" for paper in sorted(found - listed)]


def with_places(page: str, root: Path) -> str:
    """The page, with a column of the modules that name each paper."""
    sources = texts(root)

    def row(match: re.Match[str]) -> str:
        places = [name for name, text in sources.items() if match[1] in text]
        links = (f"[{name}](reference/{name.split('.')[0]}.md#{name})" for name in places)
        return f"{match[0]} {', '.join(links)} |"

    page = page.replace("| paper | title |\n| --- | --- |", "| paper | title | in |\n| --- | --- | --- |")
    return ROW.sub(row, page)
