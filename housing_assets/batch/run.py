"""One table from its input to its result, and what became of its rows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from housing_assets.batch.pricing import PricedPiece, price
from housing_assets.batch.reading import Piece
from housing_serving.bundle import Bundle

# Of the rows without a price, the first are named; all of them have their reason beside them in the result.
NAMED_ROWS = 20


@dataclass
class Outcome:
    """What became of the rows so far."""

    rows: int = 0
    rejected: int = 0
    # Rows with a value that training saw nothing like.
    unusual: int = 0
    # Row number and reason of the first rejected rows.
    problems: list[tuple[int, str]] = field(default_factory=list)

    @property
    def priced(self) -> int:
        """Rows that have a price."""
        return self.rows - self.rejected

    def add(self, one: PricedPiece) -> None:
        """Count a piece."""
        problems = one.checked.problems
        room = NAMED_ROWS - len(self.problems)
        self.problems += [(one.piece.first_row + at, why) for at, why in list(problems.items())[:room]]
        self.rows += one.rows
        self.rejected += len(problems)
        self.unusual += len(one.warnings)


def price_rows(
    pieces: Iterable[Piece], bundle: Bundle, origin: str, write: Callable[[PricedPiece], None]
) -> Outcome:
    """Price a table piece by piece.

    Args:
        pieces: The rows, as `read_pieces` gives them.
        bundle: The model.
        origin: Names the table in errors.
        write: Takes each piece when it is priced.

    Raises:
        BatchError: the table cannot be read, or its result not written.
    """
    outcome = Outcome()
    for piece in pieces:
        priced = price(piece, bundle, origin)
        write(priced)
        outcome.add(priced)
    return outcome
