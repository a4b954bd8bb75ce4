"""Augmentation: each image its own coins, all places alike, and nothing that is not in the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data.augment import Augment, plain

IMAGE = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)


def many(augment, count=4000, image=IMAGE):
    """The same image, each time with another key."""
    keys = jax.random.split(jax.random.key(1), count)
    return np.asarray(jax.jit(jax.vmap(augment, (0, None)))(keys, image))


def places(images, wanted):
    """How often each of the wanted images comes; all must be one of them."""
    equal = np.all(np.isclose(images[:, None], np.stack(wanted)[None]), axis=(2, 3, 4))
    assert np.all(equal.sum(1) == 1)
    return equal.mean(0)


def test_values():
    np.testing.assert_allclose(plain(np.array([0, 51, 255], np.uint8)), [-1, -0.6, 1], rtol=1e-6)
    image = Augment()(jax.random.key(0), IMAGE)
    assert image.dtype == jnp.float32
    np.testing.assert_array_equal(image, plain(IMAGE))


def test_half_of_the_images_are_flipped():
    shares = places(many(Augment(flip=True)), [plain(IMAGE), plain(IMAGE[:, ::-1])])
    np.testing.assert_allclose(shares, 0.5, atol=4 * 0.5 / np.sqrt(4000))


def test_pad_and_crop_reaches_every_place_alike():
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)), "reflect")
    windows = [plain(padded[row : row + 5, column : column + 6]) for row in range(3) for column in range(3)]
    np.testing.assert_allclose(places(many(Augment(pad=1)), windows), 1 / 9, atol=4 * np.sqrt(1 / 9 / 4000))


def test_flips_places_and_noise_are_independent():
    images = many(Augment(flip=True, pad=1, dequantize=True), 20_000, np.add.outer(IMAGE[..., 0], [0]).astype(np.uint8))
    levels = (images[..., 0] + 1) * 128
    flipped = levels[:, 0, 1] < levels[:, 0, 0]
    noise = levels % 1
    row = np.round((levels[:, 2, 2:4].mean(1) - levels[:, 2, 2:4].mean()) / 18)
    first, second = noise[:, 0, 0], noise[:, 0, 1]
    for one, other in ((flipped, first), (row, flipped), (row, second), (first, second)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(20_000)


def test_dequantization_is_uniform_and_stays_in_range():
    image = np.array([0, 100, 255], np.uint8).reshape(1, 3, 1)
    levels = (many(Augment(dequantize=True), image=image).reshape(-1, 3) + 1) * 128 - image.reshape(-1)
    assert levels.min() >= 0
    assert levels.max() <= 1
    np.testing.assert_allclose(levels.mean(0), 0.5, atol=4 / np.sqrt(12 * 4000))
    np.testing.assert_allclose(levels.var(0), 1 / 12, atol=0.005)
    assert (image / 128 - 1).min() >= -1
    assert (255 + 1) / 128 - 1 == 1


def test_a_pad_below_zero_is_refused():
    with pytest.raises(ValueError, match="pad from 0 to 4096"):
        Augment(pad=-1)
