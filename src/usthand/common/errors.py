"""The one exception that a user is meant to see."""

from __future__ import annotations


class UsthandError(Exception):
    """Something the user can fix, told in one sentence: the fact, the likely cause, the command that fixes it.

    The command line prints the sentence and ends with exit code 1, without a traceback.

    Examples:
        >>> import usthand
        >>> try:
        ...     usthand.open_capture("nowhere")
        ... except usthand.UsthandError as error:
        ...     told = error.fact, error.cause, error.fix
    """

    def __init__(self, fact: str, cause: str, fix: str) -> None:
        """Keep the three parts.

        Args:
            fact: What is wrong.
            cause: Why, most likely.
            fix: What to do, with the command where there is one.
        """
        self.fact, self.cause, self.fix = fact, cause, fix
        super().__init__(f"{fact}: {cause}; {fix}.")
