"""Commands for the shell: completion, and the version.

Owns which shells can complete the command line.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from proxy.command.options import as_json, examples
from proxy.command.printing import say, say_json

VARIABLE = "_LLAMADOZE_COMPLETE"


@click.command(
    epilog=examples(
        "llamadoze completion bash > ~/.local/share/bash-completion/completions/llamadoze",
        'eval "$(llamadoze completion zsh)"',
        "llamadoze completion fish > ~/.config/fish/completions/llamadoze.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    With it, the shell completes commands, options, and model names.
    """
    known = get_completion_class(shell)
    if known is not None:
        root = context.find_root()
        say(known(root.command, {}, "llamadoze", VARIABLE).source())


@click.command()
@as_json
def version(*, as_json: bool) -> None:
    """Print the version."""
    if as_json:
        say_json({"version": _version()})
    else:
        say_version()


def say_version() -> None:
    """Print the version."""
    say(f"llamadoze {_version()}")


def _version() -> str:
    from importlib.metadata import version

    return version("llamadoze")
