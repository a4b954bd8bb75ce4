"""Which modules name which paper, beside the list in docs/papers.md."""

import re
from pathlib import Path

from reference import FOLDERS

WORD = r"[^\W\d_]+"
ALONE = "Hutchinson|Tsitouras"  # authors of papers of their own: May 2023 is none
# 2021a and 2021b are two papers of one year
NAMED = re.compile(rf"(?:{WORD} et al\.|{WORD} & {WORD}|{ALONE}) (?:19|20)\d\d[a-z]?\b")
ROW = re.compile(r"^\| (.+? \d{4}[a-z]?) \| (.+) \|$", re.MULTILINE)


def texts(root: Path) -> dict[str, str]:
    """The source of each module, without line breaks."""
    paths = (path for folder in FOLDERS for path in sorted((root / "jaxdiff" / folder).rglob("*.py")))
    names = {".".join(path.relative_to(root / "jaxdiff").with_suffix("").parts): path for path in paths}
    return {name: re.sub(r"\s*#?\s+", " ", path.read_text(encoding="utf-8")) for name, path in names.items()}


def unlisted(page: str, root: Path) -> list[str]:
    """Papers that a module, a config or a page names, and the list does not."""
    listed = {match[1] for match in ROW.finditer(page)}
    beside = (*(root / "docs").glob("*.md"), *(root / "configs").glob("*.py"))
    others = (path.read_text(encoding="utf-8") for path in beside if path.name != "papers.md")
    found = {paper for text in (*texts(root).values(), *others) for paper in NAMED.findall(text)}
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
