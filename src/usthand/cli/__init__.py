"""The command line: `usthand COMMAND`. Only here are there `print`, rich and exit codes.

Each command is a function whose arguments are its options. `app` lists the commands and imports the module of the
chosen one alone, so that `usthand --help` answers at once.
"""

from usthand.cli.app import COMMANDS, main

__all__ = ["COMMANDS", "main"]
