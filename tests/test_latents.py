"""Latents that are encoded once: kept whole, or made anew."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxdiff.data import Examples
from jaxdiff.models import latents

IMAGES = np.random.default_rng(0).integers(256, size=(300, 4, 4, 1)).astype(np.uint8)


@struct.dataclass
class Halves:
    """A codec whose latents are the images, divided."""

    by: float = 2.0

    def moments(self, images):
        return jnp.concatenate([images / self.by, jnp.zeros_like(images)], -1)


WANTED = np.concatenate([(IMAGES / np.float32(127.5) - 1) / 2, np.zeros_like(IMAGES, np.float32)], -1)


def made(folder, images=IMAGES, name="latents-1.npy", codec=Halves()):
    return latents.moments_of(codec, Examples(images), folder / name)


def test_they_are_kept(tmp_path):
    np.testing.assert_allclose(made(tmp_path), WANTED, atol=1e-6)
    before = os.stat(tmp_path / "latents-1.npy")
    np.testing.assert_allclose(made(tmp_path, codec=Halves(3.0)), WANTED, atol=1e-6)
    assert os.stat(tmp_path / "latents-1.npy").st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["latents-1.npy"]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not one of numpy's"])
def test_a_file_that_is_not_whole_is_made_anew(tmp_path, content):
    (tmp_path / "latents-1.npy").write_bytes(content)
    np.testing.assert_allclose(made(tmp_path), WANTED, atol=1e-6)
    with open(tmp_path / "latents-1.npy", "r+b") as file:
        file.truncate(5000)
    np.testing.assert_allclose(made(tmp_path), WANTED, atol=1e-6)


def test_those_of_other_data_go(tmp_path):
    made(tmp_path)
    assert made(tmp_path, IMAGES[:10], "latents-2.npy").shape == (10, 4, 4, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["latents-2.npy"]


def test_of_two_processes_the_first_is_taken(tmp_path, monkeypatch):
    def other(codec, images):
        if not (tmp_path / "latents-1.npy").exists():
            np.save(tmp_path / "latents-1.npy", WANTED)
        return codec.moments(images / 255.0)

    monkeypatch.setattr(latents, "_moments", other)
    np.testing.assert_array_equal(made(tmp_path), WANTED)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(codec, images):
        if any(tmp_path.iterdir()):
            raise OSError(28, "No space left on device")
        return codec.moments(jnp.zeros((256, 4, 4, 1)))

    monkeypatch.setattr(latents, "_moments", full)
    with pytest.raises(OSError, match="No space left"):
        made(tmp_path)
    assert list(tmp_path.iterdir()) == []
