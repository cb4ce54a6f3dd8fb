"""The one exception that a user is meant to see."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend, told in one sentence: the fact, the likely cause, the command that mends it.

    The command line prints the sentence and ends with exit code 1, without a traceback.
    """

    def __init__(self, fact: str, cause: str, mend: str):
        self.fact, self.cause, self.mend = fact, cause, mend
        super().__init__(f"{fact}: {cause}; {mend}.")
