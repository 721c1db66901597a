"""What administrators do: the rules, once, for the command line and for the API.

A function here takes the store, does one thing whole, and says what came of it as a value. What is asked for and is
so already is no error: the value says that nothing was changed. `Refused` carries a sentence for a person and the
name of the field that is wrong; storage's own errors (Unavailable, OutcomeUnknown) pass through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage import AlreadyExists, LimitReached, NotAllowed, NotFound


class Refused(Exception):
    """The request cannot be done as it stands. field: what is wrong, in the words of the request."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


@contextmanager
def refusing(field: str) -> Iterator[None]:
    """Turns what storage and the parsers refuse into Refused, with a sentence a person understands."""
    try:
        yield
    except NotFound as error:
        raise Refused(f"{error} does not exist", field) from error
    except AlreadyExists as error:
        raise Refused(f"{error} exists already", field) from error
    except (NotAllowed, LimitReached, ValueError) as error:
        raise Refused(str(error), field) from error
