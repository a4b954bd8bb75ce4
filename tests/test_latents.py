"""Latents that are encoded once: kept whole, or made anew."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxdiff.core.c_noise import time
from jaxdiff.core.process import Flow
from jaxdiff.data import Digits, Examples
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion, latents
from jaxdiff.models.system import Constants
from jaxdiff.nets import MLP
from jaxdiff.training.step import Seen

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


def test_with_flips_mirror_images_have_their_own(tmp_path):
    both = latents.moments_of(Halves(), Examples(IMAGES), tmp_path / "latents-1.npy", flip=True)
    assert both.shape == (300, 2, 4, 4, 2)
    np.testing.assert_allclose(both[:, 0], WANTED, atol=1e-6)
    np.testing.assert_allclose(both[:, 1], WANTED[:, :, ::-1], atol=1e-6)
    assert made(tmp_path).shape == (300, 4, 4, 2)  # the file of another setting is not taken for one of this


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
    def other(codec, images, flip):
        if not (tmp_path / "latents-1.npy").exists():
            np.save(tmp_path / "latents-1.npy", WANTED)
        return codec.moments(images / 255.0)

    monkeypatch.setattr(latents, "_moments", other)
    np.testing.assert_array_equal(made(tmp_path), WANTED)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(codec, images, flip):
        if any(tmp_path.iterdir()):
            raise OSError(28, "No space left on device")
        return codec.moments(jnp.zeros((256, 4, 4, 1)))

    monkeypatch.setattr(latents, "_moments", full)
    with pytest.raises(OSError, match="No space left"):
        made(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_encoded_once_is_flipped_and_no_more():
    system = Diffusion(MLP((8,)), process=Flow(), c_noise=time, codec="runs/codec")
    Config(system, Digits(), augment=Augment(flip=True))
    with pytest.raises(ValueError, match=r'pad=2.* needs system.encode="each step"'):
        Config(system, Digits(), augment=Augment(flip=True, pad=2))


def test_a_step_sees_an_image_or_its_mirror_image():
    system = Diffusion(MLP((8,)), process=Flow(), c_noise=time)
    params = system.start(jax.random.key(0), (4, 4, 1))
    seen, u = Seen(params, (params,), jnp.int32(0)), jnp.float32(0.5)
    both = jnp.stack([jnp.zeros((4, 4, 2)), jnp.ones((4, 4, 2))])

    def losses(flip, moments):
        def one(key):
            return system.loss(Augment(flip=flip), seen, Constants(), key, u, {"moments": moments}, True)

        return np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(1), 64)))

    plain, mirrored = losses(False, both[0]), losses(False, both[1])
    drawn = losses(True, both)
    is_mirrored = np.abs(drawn - mirrored) < np.abs(drawn - plain)
    np.testing.assert_allclose(drawn, np.where(is_mirrored, mirrored, plain), rtol=1e-5)
    assert 16 <= is_mirrored.sum() <= 48
