# PYTHON_ARGCOMPLETE_OK
"""The command line. Each command has a module, with `add` for its options and `run`, which alone imports jax."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from gps.cli import check_task, compare, evaluate, export, listing, plot, render, report, sweep, train, view, watch
from gps.cli.completion import complete
from gps.errors import UserError, printable

COMMANDS = (train, watch, compare, sweep, evaluate, plot, render, report, view, export, listing, check_task)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Mistakes of the user are one line on standard error and status 2."""
    options = argparse.Namespace(command=None)
    parser = _parser()
    complete(parser)
    try:
        parser.parse_args(arguments, options)
        return options.command.run(options)
    except (UserError, OSError) as error:
        lines = error.args if isinstance(error, UserError) else (error,)
        print("\n".join(map(printable, (f"gps: {lines[0]}", *map(str, lines[1:])))), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gps: stopped{getattr(options.command, 'GO_ON', '')}", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """One whose messages repeat what was typed without what a terminal would obey."""

    def _print_message(self, message, file=None):
        super()._print_message("\n".join(map(printable, message.split("\n"))), file)


class _Version(argparse.Action):
    """What `action="version"` does, but looks the version up only where it is asked for."""

    def __call__(self, parser, *_):
        try:
            version = metadata.version("guided-policy-search")
        except metadata.PackageNotFoundError:
            version = "of a folder that is not installed"
        print(f"gps {version}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gps", description="Guided policy search.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in COMMANDS:
        module.add(commands).set_defaults(command=module)
    return parser


if __name__ == "__main__":
    sys.exit(main())
