"""Which examples a data set has: what is another is said in words."""

import numpy as np
import pytest

from jaxdiff.data import Examples
from jaxdiff.data.identity import changes, identity_of, labels_differ

PIXELS = np.zeros((4, 2, 2, 1), np.uint8)


def known(labels=(0, 1, 0, 1), classes=("cat", "dog"), names="a", pixels=PIXELS):
    labels = None if labels is None else np.array(labels, np.int32)
    return identity_of(Examples(pixels, labels, classes, names=names))


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (known(), []),
        (known(names="b"), ["other files, or in another order: their names, contents or labels differ"]),
        (known((0, 1, 1, 1)), ["other files, or in another order: their names, contents or labels differ"]),
        (known(None, None), ["classes went: cat, dog"]),
        (known(classes=("dog", "cat")), ["the classes are in another order"]),
        (known((0, 1, 2, 1), ("cat", "cow", "dog")), ["classes came: cow"]),
        (known(None, ("cat", "dog"), pixels=PIXELS[:3]), ["the number of images was 4, is now 3"]),
        (known(pixels=PIXELS[:, :1]), ["an image was [2, 2, 1], is [1, 2, 1]"]),
    ],
)
def test_what_is_another_is_said(now, says):
    assert changes(known(), now) == says


@pytest.mark.parametrize("before", [{}, {"image": [2, 2, 1]}, {"image": [2, 2, 1], "classes": ["cat", "dog"]}])
def test_what_was_not_noted_is_not_missed(before):
    assert changes(before, known()) == []


@pytest.mark.parametrize("classes", [None, 7, "cat", {"cat": 1}, [[1], 2]])
def test_what_is_no_list_of_names_is_another(classes):
    assert len(changes({**known(), "classes": classes}, known())) == 1


@pytest.mark.parametrize(
    ("classes", "differ"),
    [(["cat", "dog"], False), (["cat", "dog", "eel"], False), (["cat"], False), (None, False), (["ant", "cat"], True)],
)
def test_labels_mean_the_same_if_the_names_before_them_do(classes, differ):
    assert labels_differ(known(), {**known(), "classes": classes}) == differ
