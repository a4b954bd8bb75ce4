"""Numbers as one says them."""

_PREFIXES = {12: "T", 9: "G", 6: "M", 3: "k", 0: ""}


def amount(count: float, unit: str) -> str:
    """With a prefix: 24.1 MB, 61.9 TFLOP."""
    power = next((power for power in (12, 9, 6, 3) if count >= 10**power), 0)
    number = count / 10**power
    return f"{number:.0f} {_PREFIXES[power]}{unit}" if number >= 100 else f"{number:.3g} {_PREFIXES[power]}{unit}"


def duration(seconds: float) -> str:
    """In the unit that reads best: 0.8 s, 12 min, 3.5 h."""
    for name, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {name}" if seconds < 10 * length else f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def plural(count: int, noun: str) -> str:
    """1 image, 2 images, 1,797 images."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def speed(rate: float, noun: str = "image") -> str:
    """23.1 images/s; of what takes longer than a second each how long that is: 22 s an image."""
    if not 0 < rate < 1:
        return f"{rate:,.0f} {noun}s/s" if rate >= 100 else f"{rate:.3g} {noun}s/s"
    return f"{duration(1 / rate)} an {noun}"
