"""Commands that make a daemon do something: with a model, with all models, or with its files.

Owns their options and their output. `proxy.terminal` reports the progress of a model's start.
"""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Any

import click

from proxy.command.daemons import asking, named_model
from proxy.command.options import as_json, examples
from proxy.command.printing import say, say_json

if TYPE_CHECKING:
    from proxy.terminal.asking import Daemon
    from proxy.terminal.tables import Row

STEPS = {
    "load": "Start or wake a model, as a request would. The command waits until it is ready.",
    "wake": "Wake a sleeping model. The command waits until it is ready.",
    "sleep": "Put a model to sleep after its requests. The command waits until it sleeps.",
}
WEEK = 7 * 86400  # seconds
ENDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _step(name: str, words: str) -> click.Command:
    @click.command(name, help=words, epilog=examples(f"llamadoze {name} chat"))
    @named_model()
    @as_json
    @asking
    def step(daemon: Daemon, model: str, *, as_json: bool) -> None:
        from proxy.terminal import steps

        row = steps.step(daemon, name, model)
        say_json(row) if as_json else say(f"{row['model']}: {row['state']}")

    return step


load, wake, sleep = (_step(name, words) for name, words in STEPS.items())


@click.command(epilog=examples("llamadoze unload chat", "llamadoze unload --all"))
@named_model(required=False)
@click.option("--all", "everything", is_flag=True, help="Stop all models.")
@as_json
@asking
def unload(daemon: Daemon, model: str | None, *, everything: bool, as_json: bool) -> None:
    """Stop a model now, and cancel its requests."""
    from proxy.terminal import steps

    if (model is None) != everything:
        raise click.UsageError("nothing to unload: give either a MODEL or --all")
    if model is not None:
        row = steps.unload(daemon, model)
        say_json(row) if as_json else say(_ended(row))
        return
    failed = steps.unload_all(daemon)
    rest = {"model": None, "state": "stopped"}
    if as_json:
        say_json({**rest, "failed": failed} if failed else rest)
    else:
        say(*map(_ended, failed), f"all {'other ' if failed else ''}models: stopped")


def _ended(row: Row) -> str:
    why = f": {row['failure']}" if row.get("failure") else ""
    return f"{row['model']}: {row['state']}{why}"


@click.command(epilog=examples("llamadoze pin chat", "llamadoze pin chat --for 2h --reason demo"))
@named_model()
@click.option(
    "--for",
    "length",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long, such as 90s, 30m, 2h or 7d.",
)
@click.option("--reason", default="", help="The reason that waiting clients are told.")
@as_json
@asking
def pin(daemon: Daemon, model: str, length: str, reason: str, *, as_json: bool) -> None:
    """Load a model and keep it awake for some time.

    It makes no room for other models. Commands that name it still put it to sleep, or unload it.
    """
    from proxy.terminal import steps
    from proxy.terminal.words import span

    lease = steps.pin(daemon, model, _seconds(length), _holder(), reason)
    said = f"{lease['model']}: pinned for {span(lease['left'])}; 'llamadoze unpin' ends it"
    say_json(lease) if as_json else say(said)


@click.command()
@named_model()
@as_json
@asking
def unpin(daemon: Daemon, model: str, *, as_json: bool) -> None:
    """Remove all pins and leases of a model, whoever created them."""
    from proxy.terminal import steps

    ended = steps.unpin(daemon, model)
    if as_json:
        say_json(ended)
    else:
        say(f"{model}: {'unpinned' if ended else 'was not pinned'}")


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ENDS else (text, "s")
    try:
        value = float(number) * ENDS[unit]
    except ValueError:
        value = 0.0
    if not 1 <= value <= WEEK:
        raise click.UsageError(
            f"--for {text}: expected a time from 1s to 7d, such as 90s, 30m or 2h"
        )
    return value


def _holder() -> str:
    try:
        return f"{getpass.getuser()}, by llamadoze pin"
    except (KeyError, OSError):  # a container's user may have no name
        return "llamadoze pin"


@click.command(
    epilog=examples(
        "llamadoze run chat",
        'llamadoze run chat "What is a doze?"',
        "git diff | llamadoze run code --system 'Review this change'",
    )
)
@named_model()
@click.argument("prompt", nargs=-1)
@click.option("--system", default="", metavar="TEXT", help="The system prompt.")
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N", help="The most tokens in an answer."
)
@click.option(
    "--temperature", type=click.FloatRange(0), metavar="T", help="The sampling temperature."
)
@as_json
@asking
def run(
    daemon: Daemon,
    model: str,
    prompt: tuple[str, ...],
    system: str,
    *,
    as_json: bool,
    **settings: Any,  # noqa: ANN401 -- click's
) -> None:
    """Chat with a model, which is started or woken if necessary.

    Without PROMPT, you chat in the terminal, or pass the prompt on standard input.
    """
    from proxy.terminal.chat import Chat, converse
    from proxy.terminal.steps import say_of_pause

    say_of_pause(daemon)
    given = {name: value for name, value in settings.items() if value is not None}
    chat = Chat(daemon, model, given, system)
    parts = [" ".join(prompt)] if prompt else []
    if not sys.stdin.isatty():
        parts.append(sys.stdin.read())
    text = "\n\n".join(part for part in parts if part.strip())
    if text:
        say_json(chat.answer(text)) if as_json else chat.say(text)
    elif as_json:
        raise click.UsageError(
            "--json prints one answer: give a PROMPT, or pass one on standard input"
        )
    elif sys.stdin.isatty():
        converse(chat)
    else:
        raise click.UsageError("standard input is empty: give a PROMPT, or chat in a terminal")


@click.command()
@click.option(
    "--refuse", is_flag=True, help="Refuse requests during the pause. Default: they wait."
)
@as_json
@asking
def pause(daemon: Daemon, *, refuse: bool, as_json: bool) -> None:
    """Free the memory of all models until 'resume'.

    When its requests have ended, each model sleeps, or stops if it cannot sleep. Other programs
    can use the memory then.
    """
    from proxy.terminal import steps

    told = steps.pause(daemon, refuse=refuse)
    what = "are refused" if refuse else "wait"
    said = f"paused: requests {what} until 'llamadoze resume'"
    say_json(told) if as_json else say(said)


@click.command()
@as_json
@asking
def resume(daemon: Daemon, *, as_json: bool) -> None:
    """End a pause, and load what was awake before it."""
    from proxy.terminal import steps

    told = steps.resume(daemon)
    say_json(told) if as_json else say("resumed")


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, without changing it.")
@as_json
@asking
def reload(daemon: Daemon, *, dry_run: bool, as_json: bool) -> int:
    """Reload the configuration, and show what has changed."""
    from proxy.terminal import changed

    seen = daemon.told("/api/config", "good")
    if not dry_run and seen["good"]:
        daemon.ask("/api/reload", "POST", limit=None)
    say_json(seen) if as_json else say(*changed.told(seen, dry_run=dry_run))
    return 0 if seen["good"] else 1
