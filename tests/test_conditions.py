"""Conditions: labels and prompts, what a batch holds for them, the condition of one example."""

from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import exact_system

from jaxdiff.cli.given import known_of, parsed_labels
from jaxdiff.data import Examples
from jaxdiff.models import Labels, Prompts
from jaxdiff.models.conditions import labels_of
from jaxdiff.models.model import Model
from jaxdiff.nets.text import Bytes

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)
LABELLED = Examples(IMAGES, np.array([0, 2, 1, 2], np.int32), ("cat", "dog", "frog"))
CAPTIONED = Examples(IMAGES, captions=("a cat", "a dog", "", "frogs"))
TOKENS = Bytes(16)
KEYS = jax.random.split(jax.random.key(0), 3000)


def test_labels():
    labels = Labels(3, drop=0.1)
    fields = labels.fields(LABELLED)
    np.testing.assert_array_equal(fields["label"], [0, 2, 1, 2])
    assert labels.pick(KEYS[0], {"label": fields["label"][1]}) == 2
    assert labels.null == 3
    conditions, texts = labels.choices(("cat", "dog", "frog"))
    np.testing.assert_array_equal(conditions, [0, 1, 2])
    assert texts == ["cat", "dog", "frog"]
    assert labels.choices()[1] == ["0", "1", "2"]
    assert labels.named(np.array([2, 2]), ("cat", "dog"))[1] == ["2", "2"]
    assert conditions.dtype == labels.null.dtype == fields["label"].dtype == np.int32


def test_captions():
    prompts = Prompts(TOKENS)
    tokens = prompts.fields(CAPTIONED)["tokens"]
    assert tokens.shape == (4, 1, 16)
    for row, caption in zip(tokens, CAPTIONED.captions, strict=True):
        np.testing.assert_array_equal(prompts.pick(KEYS[0], {"tokens": row}), TOKENS(caption))
    np.testing.assert_array_equal(prompts.null, TOKENS(""))


def test_every_template_comes_as_often_as_the_others():
    templates = ("{}", "a {}", "a photo of {}")
    prompts = Prompts(TOKENS, templates)
    tokens = prompts.fields(LABELLED)["tokens"]
    assert tokens.shape == (4, 3, 16)
    picked = np.asarray(jax.vmap(lambda key: prompts.pick(key, {"tokens": jnp.asarray(tokens[1])}))(KEYS))
    wanted = np.stack([TOKENS(template.format("frog")) for template in templates])
    equal = np.all(picked[:, None] == wanted, axis=2)
    assert np.all(equal.sum(1) == 1)
    np.testing.assert_allclose(equal.mean(0), 1 / 3, atol=4 * np.sqrt(2 / 9 / len(KEYS)))


def test_prompts_of_a_picture():
    conditions, texts = Prompts(TOKENS, shown=("a cat", "a dog")).choices()
    assert texts == ["a cat", "a dog"]
    np.testing.assert_array_equal(conditions[1], TOKENS("a dog"))
    assert Prompts(TOKENS).choices()[1] == [""]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Labels(0), "classes from 1 to 2\\^20"),
        (lambda: Labels(3, drop=1.0), "0 <= drop < 1"),
        (lambda: Labels(2).fields(LABELLED), "labels up to 2, the model knows classes=2: .* must be 3"),
        (lambda: labels_of(CAPTIONED, 3), "the data has none"),
        (lambda: Prompts(TOKENS, ("a photo",)), "templates with {} in them"),
        (lambda: Prompts(TOKENS, ()), "templates with {} in them"),
        (lambda: Prompts(TOKENS, drop=-0.1), "0 <= drop < 1"),
        (lambda: Prompts(TOKENS).fields(Examples(IMAGES)), "captions or classes in the data"),
    ],
)
def test_bad_conditions_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_what_given_images_were_is_said_as_the_new_ones_are():
    words = Prompts(TOKENS, ("a {}",), drop=0.1)
    model = Model(exact_system(condition=words), {}, (2, 2, 1), classes=("cat", "dog", "frog"))
    assert known_of(Namespace(was="1", labels=None), model) == {"prompts": ["1"]}
    assert known_of(Namespace(was="1", labels="2"), model) == {"labels": [1]}
    assert known_of(Namespace(was=None, labels="2"), model) == {}


def test_a_range_of_labels_is_one_of_names_where_these_are_numbers():
    names = ("1", "2", "3", "10")
    assert parsed_labels("1-3,10", names) == ["1", "2", "3", "10"]
    assert parsed_labels("0-2", names) == [0, 1, 2]
    assert parsed_labels("0-2", ("cat", "dog", "ship")) == [0, 1, 2]
