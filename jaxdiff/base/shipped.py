"""The configs that come with jaxdiff: beside the package in a checkout, within it where a wheel was installed."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = _PACKAGE / "shipped" / "configs"  # setup.py puts them there
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.py"))
