"""Reading order of blocks over tokens."""

from typing import Literal, Protocol

from jaxtyping import Float
from torch import Tensor

Direction = Literal["forward", "backward", "bidirectional"]


class TokenReader(Protocol):
    """A function that reads tokens in order or in reverse."""

    def __call__(
        self, x: Float[Tensor, "batch token dim"], *, reverse: bool
    ) -> Float[Tensor, "batch token dim"]:
        """Read the tokens.

        Args:
            x: The tokens.
            reverse: Whether to read from the last token to the first.

        Returns:
            The results, in the order of `x`.
        """


def read_tokens(
    read: TokenReader, x: Float[Tensor, "batch token dim"], *, direction: Direction
) -> Float[Tensor, "batch token dim"]:
    """Read tokens in one direction, or average both directions.

    Args:
        read: The reader.
        x: The tokens.
        direction: The reading order. `bidirectional`: the mean of both orders.
    """
    if direction == "bidirectional":
        return (read(x, reverse=False) + read(x, reverse=True)) / 2
    return read(x, reverse=direction == "backward")
