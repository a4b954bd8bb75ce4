"""What is said of a wrong value."""


def require(legal: bool, what: str, got: object) -> None:
    """A ValueError that says what is legal."""
    if not legal:
        raise ValueError(f"needs {what}, got {got!r}")
