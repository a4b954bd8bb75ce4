"""What pyproject.toml cannot say: configs go into the wheel, and the links of README.md lead somewhere on PyPI too."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOME = "https://github.com/jaxdiff/jaxdiff"


class WithConfigs(build_py):
    """Puts configs/ into the wheel, as jaxdiff/shipped/configs."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "jaxdiff", "shipped", "configs")
            shutil.rmtree(place, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", place, ignore=shutil.ignore_patterns("__pycache__"))


def absolute(match: re.Match[str]) -> str:
    """One link, to the code host: a picture to the file itself."""
    return f"{match[1]}{HOME}/{'raw' if match[1].startswith('!') else 'blob'}/main/{match[2]}"


readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    cmdclass={"build_py": WithConfigs},
    long_description=re.sub(r"(!?\[[^\]]*\]\()(?!https:)([^)]+)", absolute, readme),
    long_description_content_type="text/markdown",
)
