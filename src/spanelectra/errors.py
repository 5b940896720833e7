"""The one exception that means "the user can fix this", and the words that help to.

Every module raises :class:`UserError` for a user's mistake; the command line turns it into one or two lines on
standard error and exit code 2. Anything else that escapes is a defect of ours and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Characters that are shown of a long message's beginning and of its end.
_HALF = 1000
# Characters that are shown of a cell.
_CELL = 60


class UserError(ValueError):
    """A mistake in what the user gave: says what was wrong, where, and what to do about it, in a line or two.

    What a file holds may stand in it, and may be a page long: of such a message the middle is left out, for where it is
    wrong stands at its beginning, and what to do at its end.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 2 * _HALF else f"{message[:_HALF]} … {message[-_HALF:]}")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'mask_ratio'?"`` for the choice nearest to ``word``, or an empty string.

    Initials stand for a name: ``--lr`` for ``--learning_rate``.
    """
    # without a flag's dashes, in which all flags are alike
    known, letters = {choice.lstrip("-"): choice for choice in choices}, word.lstrip("-")
    initials = [name for name in known if "".join(part[:1] for part in name.split("_")) == letters]
    nearest = initials[:1] if len(letters) > 1 else []
    nearest = nearest or difflib.get_close_matches(letters, known, n=1, cutoff=0.6)
    return f" Did you mean '{known[nearest[0]]}'?" if nearest else ""


def shortened(cell: object) -> str:
    """What a cell of a file holds, for a sentence of ours: its beginning, on one line."""
    line = " ".join(str(cell).split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"


def reason_of(error: BaseException | str) -> str:
    """What another library's error says, for a sentence of ours: its first line, not a page of it.

    A first line that announces the next ones by a colon goes on with them.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    first = next(iter(lines), "")
    line = " ".join(filter(None, lines)) if first.endswith(":") else first or type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."
