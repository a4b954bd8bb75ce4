"""What MkDocs calls: pages made of the source and of the files above docs/, and links between all of them."""

import sys
from pathlib import Path
from typing import Any

from links import ABOVE, relinked
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from papers import unlisted, with_places
from reference import Reference

PAPERS = "docs/papers.md"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are no files of docs/."""
    root = _root(config)
    sys.path.insert(0, str(root))  # the commands, whose options are shown
    reference = Reference(root)
    made = {f"reference/{name}": text for name, text in reference.pages().items()}
    made |= {page: (root / file).read_text(encoding="utf-8") for file, page in ABOVE.items()}
    wrong = [*dict.fromkeys(reference.missing), *unlisted((root / PAPERS).read_text(encoding="utf-8"), root)]
    if wrong:
        raise PluginError("\n".join(wrong))
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turns links to files of the repository into links to pages."""
    root = _root(config)
    text = with_places(markdown, root) if f"docs/{page.file.src_uri}" == PAPERS else markdown
    return relinked(text, page.file.src_uri, root)


def _root(config: Any) -> Path:
    return Path(config.config_file_path).parent
