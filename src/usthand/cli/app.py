"""The list of commands, and how one of them is found, run and ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from tyro.extras import SubcommandApp

from usthand.common.errors import UsthandError


class Command(NamedTuple):
    """A command that is imported once it is chosen."""

    module: str
    """Of `usthand.cli`."""
    function: str
    summary: str
    """What it does, for `usthand --help`; `usthand COMMAND --help` has the function's own docstring."""

    def load(self) -> Callable[..., None]:
        """The function, whose arguments are the command's options."""
        return getattr(import_module(f"usthand.cli.{self.module}"), self.function)


COMMANDS = {
    "init": Command("captures", "init", "Make a capture of your own videos and calibration."),
    "synth": Command("captures", "synth", "Make a synthetic capture with exact truth."),
    "import": Command("captures", "import_dataset", "Turn a public data set into captures."),
    "label": Command("labels", "label", "Detect the hands' 2D joints in all videos of a capture."),
    "import-labels": Command("labels", "import_labels", "Take 2D joints from another detector's files."),
    "check": Command("captures", "check", "Find what is wrong with a capture, with the fix for each fault."),
    "fit": Command("hands", "fit", "Hands from the labels alone, without training."),
    "train": Command("networks", "train", "Train the network on the captures' labels."),
    "reconstruct": Command("networks", "reconstruct", "Hands from a trained network and a sequence fit."),
    "evaluate": Command("results", "evaluate", "Measure how good a result is."),
    "mark": Command("marks", "mark", "Mark fingertips by eye, and measure results by the marks."),
    "overlay": Command("results", "overlay", "Draw results over the footage."),
    "demo": Command("experiments", "demo", "The whole method on a synthetic capture, up to a report."),
    "bench": Command("experiments", "bench", "Fill a table of the benchmarks."),
    "pretrain": Command("experiments", "pretrain", "Train the weights that come with the package."),
    "hand install": Command("hands", "hand_install", "Check an official MANO file and install it."),
    "hand export": Command("hands", "hand_export", "Write the embedded hand in MANO's file layout."),
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a `UsthandError` becomes one sentence on stderr and exit code 1.

    Args:
        arguments: Of the command line, without the program's name; those of this process if None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    description = "3D hands with uncertainty from calibrated multi-camera video."
    try:
        _app_for(arguments).cli(args=arguments, prog="usthand", description=description)
    except UsthandError as error:
        print(f"usthand: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        print("usthand: stopped.", file=sys.stderr)
        sys.exit(130)


def _app_for(arguments: list[str]) -> SubcommandApp:
    """All commands; the one that the arguments begin with is imported, the others are a name and a summary."""
    app, hand = SubcommandApp(), SubcommandApp()
    for name, command in COMMANDS.items():
        *group, last = name.split()
        chosen = arguments[: len(group) + 1] == [*group, last]
        register = (hand if group else app).command(name=last, help=None if chosen else command.summary)
        register(command.load() if chosen else _not_chosen)
    app.command(hand, name="hand", help="Hand models: install MANO's, or export the embedded one.")
    return app


def _not_chosen() -> None:
    """Stand in for a command that is not imported."""
