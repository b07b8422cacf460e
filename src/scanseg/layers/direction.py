"""The order in which a block over tokens reads them."""

from typing import Literal, Protocol

from jaxtyping import Float
from torch import Tensor

Direction = Literal["forward", "backward", "bidirectional"]


class TokenReader(Protocol):
    """Reads tokens in their order, or from the last to the first."""

    def __call__(
        self, x: Float[Tensor, "batch token dim"], *, reverse: bool
    ) -> Float[Tensor, "batch token dim"]:
        """Read the tokens; the result stays in their order."""


def read_tokens(
    read: TokenReader, x: Float[Tensor, "batch token dim"], *, direction: Direction
) -> Float[Tensor, "batch token dim"]:
    """Pass tokens through a reader in one direction, or in both and take the mean.

    Args:
        read: The reader.
        x: The tokens.
        direction: The order.
    """
    if direction == "bidirectional":
        return (read(x, reverse=False) + read(x, reverse=True)) / 2
    return read(x, reverse=direction == "backward")
