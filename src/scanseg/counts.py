"""Counts of things, in words."""


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """Say how many things there are: `1 case`, `2 cases`.

    Args:
        number: How many.
        thing: What one of them is called.
        plural: What several are called; None: the same with an s.
    """
    return f"{number} {thing if number == 1 else plural or thing + 's'}"
