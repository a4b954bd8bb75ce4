"""Fields of configs that may be another when a run is resumed."""

import dataclasses
from typing import Any


def may_change(default: Any = dataclasses.MISSING) -> Any:
    """A field that says when, where or how long something happens, not what: a run can be resumed with another."""
    return dataclasses.field(default=default, metadata={"may_change": True})
