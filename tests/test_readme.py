"""The README's programs run as they stand, and its samples land where they should."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_programs_run(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    scope = {}
    for program in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(program, scope)
    angles = np.arange(8) * np.pi / 4
    centres = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = np.linalg.norm(scope["points"][:, None] - centres, axis=2)
    assert distances.min(axis=1).mean() < 0.2  # 0.125 expected, of modes 1.5 apart
    np.testing.assert_allclose(np.bincount(distances.argmin(axis=1)) / 2000, 1 / 8, atol=4 * (7 / 64 / 2000) ** 0.5)
    assert (tmp_path / "mixture.png").stat().st_size > 5000
    assert scope["images"].shape == (20, 32, 32, 3)
    assert np.isfinite(scope["value"])
    assert scope["gradient"] < 0  # the weight wants to grow from zero
