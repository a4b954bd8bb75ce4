"""Python files of the user's own, which are run: configs, and modules whose classes configs and runs name."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxdiff.base import shipped
from jaxdiff.base.annotations import is_object
from jaxdiff.base.text import did_you_mean
from jaxdiff.base.tree import check, error_at


def load(path: str | Path) -> Any:
    """The `config` that a Python file defines, checked; `mnist` is configs/mnist.py, here or of jaxdiff."""
    file = _config_file(Path(path))
    config = getattr(_run(file), "config", None)
    if not is_object(config):
        raise ValueError(f"{file} must define `config`, such as config = Config(...)")
    try:
        return check(config)
    except ValueError as error:
        raise error_at(str(file), error) from error


def module(source: str) -> ModuleType:
    """The module in a file, or of a name that Python finds; run at most once."""
    if not source.endswith(".py"):
        return _imported(source)
    file = Path(source)
    if not file.is_file():
        raise ValueError(f"no file {source}")
    known = sys.modules.get(_name(file))
    return known if known is not None and _is_of(known, file) else _run(file)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _config_file(path: Path) -> Path:
    places = [Path(), Path("configs"), shipped.CONFIGS]
    for file in (place / f"{path}{end}" for place in places for end in ("", ".py")):
        if file.is_file():
            return file
    folders = [path.parent, *places[1:]]
    near = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.py"))}
    raise ValueError(f"no config file {path}{did_you_mean(path.stem, near)}")


def _run(file: Path) -> ModuleType:
    """A file as a module called by its stem, which other files beside it can import as well."""
    made = ModuleType(_name(file))
    made.__file__ = str(file.resolve())
    before, folder = sys.modules.get(made.__name__), str(file.resolve().parent)
    sys.modules[made.__name__] = made
    sys.path.insert(0, folder)
    above = str(shipped.CONFIGS.parent)
    if above not in sys.path:  # so that any file can say: from configs.mnist import config
        sys.path.append(above)
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), vars(made))
    except Exception as error:
        if before is None:
            del sys.modules[made.__name__]
        else:
            sys.modules[made.__name__] = before
        line, message = _place(error, str(file))
        raise error_at(f"{file}{line}", f"{type(error).__name__}: {message}") from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for imports within its functions; behind all others, which it must not hide
    return made


def _name(file: Path) -> str:
    """The stem; with its path if another module is called so already: a config may well be named random.py."""
    known = sys.modules.get(file.stem)
    return file.stem if known is None or _is_of(known, file) else f"{file.stem} ({file.resolve()})"


def _is_of(known: ModuleType, file: Path) -> bool:
    return Path(getattr(known, "__file__", None) or "").resolve() == file.resolve()


def _place(error: Exception, file: str) -> tuple[str, object]:
    """The line of the file it came from, even if through other files, and its message."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}", error.msg
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else "", error
