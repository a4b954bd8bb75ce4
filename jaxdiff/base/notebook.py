"""Pictures and words below the cell of a notebook, renewed in their place."""

import html
import sys
from typing import Any


def is_here() -> bool:
    """Whether a notebook runs this process: Jupyter's, Colab's or Kaggle's."""
    ipython = sys.modules.get("IPython")  # without it there is none
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Panel:
    """Places below the cell that is running, from top to bottom."""

    def __init__(self, *places: str) -> None:
        from IPython.display import HTML, display

        self._places: dict[str, Any] = {place: display(HTML(""), display_id=True) for place in places}

    def progress(self, place: str, done: int, total: int, text: str) -> None:
        from IPython.display import HTML

        bar = f'<progress value="{done}" max="{total}" style="width: 20em"></progress>'
        self._places[place].update(HTML(f"{bar} <code>{html.escape(text)}</code>"))

    def picture(self, place: str, png: bytes) -> None:
        from IPython.display import Image

        self._places[place].update(Image(png))
