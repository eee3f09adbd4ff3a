"""What all commands share that talk to a daemon: the choice of the daemon, and model names.

Owns the options for it. The commands are in `looking` and `acting`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from proxy.command.options import connecting, meant, refusing_malformed
from proxy.lifecycle.startup import CannotRun

Command = Callable[..., Any]


def asking(command: Command) -> Command:
    """Give a command the options that choose a daemon, and that daemon."""

    @wraps(command)
    def with_daemon(
        url: str | None,
        state_dir: str | None,
        config: str | None,
        **more: Any,  # noqa: ANN401 -- click's
    ) -> Any:  # noqa: ANN401 -- click's
        from proxy.terminal.finding import find
        from proxy.terminal.interrupts import tidied

        with refusing_malformed():
            found = find(**meant({"url": url, "state_dir": state_dir, "config": config}))
        with tidied():
            return command(found, **more)

    return connecting(with_daemon)  # type: ignore[no-any-return] # click's decorators are not typed


def names_of_models(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the daemon's model names that complete a word; none without a daemon."""
    from proxy.terminal.finding import find

    try:
        found = find(**meant(context.params)).ask("/v1/models", limit=1.0)["data"]
    except (CannotRun, KeyError, TypeError):
        return []
    return [CompletionItem(one["id"]) for one in found if one["id"].startswith(begun)]


def named_model(**more: Any) -> Callable[[Command], Command]:  # noqa: ANN401 -- as click.argument
    """Return the argument for a model, which the shell completes with the daemon's names."""
    return click.argument("model", shell_complete=names_of_models, **more)
