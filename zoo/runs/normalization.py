"""Mean and standard deviation as a user writes them."""

from zoo.errors import UserError

Numbers = tuple[float, ...]


def given_normalization(mean: str | None, std: str | None) -> tuple[Numbers, Numbers] | None:
    """Return the mean and the standard deviation that were given, per channel; None: neither was.

    >>> given_normalization("0.5,0.5,0.5", "0.2,0.2,0.2")
    ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

    Raises:
        UserError: they are no numbers, or only one of the two is given.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UserError("--mean and --std go together: give both")
    means, deviations = _numbers(mean, "--mean"), _numbers(std, "--std")
    if not all(x > 0 for x in deviations):
        raise UserError(f"--std {std} divides the pixels: give numbers above 0")
    if len(means) != len(deviations):
        raise UserError(f"--mean {mean} and --std {std}: give as many numbers in both, one per channel")
    return means, deviations


def as_text(numbers: Numbers) -> str:
    """Return numbers as an option's value."""
    return ",".join(map(str, numbers))


def _numbers(text: str, flag: str) -> Numbers:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"{flag} {text}: give a number per channel, separated by commas") from None
