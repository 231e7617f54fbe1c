"""The parser of a command that takes its arguments itself: errors are raised, and the description keeps its lines."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def command_parser(name: str, usage: str, about: str, epilog: str) -> "ArgumentParser":
    """Make a parser without flags.

    Args:
        name: the command, such as ``edit`` or ``analyse gradients``.
        usage: what stands behind ``usage:``.
        about: the description; its lines stay as they are.
        epilog: what follows the flags.
    """
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Leaves the lines of the description as they are."""

    return ArgumentParser(
        prog=f"instructedit {name}",
        usage=usage,
        exit_on_error=False,
        formatter_class=Help,
        description=about,
        epilog=epilog,
    )
