"""Parameters of one network put into another."""

from typing import Any

import jax.numpy as jnp
from flax import traverse_util


def grafted(fresh: Any, given: Any, name: str) -> Any:
    """New parameters, with those that are given in their place. Only what the new network adds is left as it begins."""
    new, old = (traverse_util.flatten_dict(tree, sep=".") for tree in (fresh, given))
    for path, leaf in old.items():
        if path not in new or new[path].shape != leaf.shape:
            has = f"none of {path}" if path not in new else f"{path} of shape {new[path].shape}"
            raise ValueError(
                f"start: {name} has {path} of shape {leaf.shape}, system.network has {has}: give it the same fields"
            )
    return traverse_util.unflatten_dict(new | {path: jnp.asarray(leaf) for path, leaf in old.items()}, sep=".")
