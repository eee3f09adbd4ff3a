"""``llamadoze run``: a chat with a model in the terminal, which shows the answer as it arrives.

Owns the conversation and its output. The daemon starts or wakes the model, as for any client.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from proxy.lifecycle.startup import CannotRun
from proxy.terminal import interrupts
from proxy.terminal.asking import Daemon
from proxy.terminal.steps import narrated
from proxy.terminal.tables import console

DATA = b"data:"
DONE = b"[DONE]"
PROMPT = ">>> "
HELP = 'Ctrl-C ends an answer, Ctrl-D the chat; /clear clears it; """ begins and ends several lines'
QUOTES = '"""'


@attrs.define(eq=False)
class Chat:
    """A conversation with a model.

    Attributes:
        daemon: the daemon of the model.
        model: the model's name.
        settings: settings of each request, such as ``temperature``.
        system: the system prompt; empty for none.
    """

    daemon: Daemon
    model: str
    settings: dict[str, Any]
    system: str = ""
    _said: list[dict[str, str]] = attrs.field(factory=list, init=False)

    def say(self, text: str) -> None:
        """Send a message to the model, and print its answer as it arrives.

        Raises:
            Refused: the request is refused, or its model fails.
            CannotRun: the answer broke off.
        """
        self._said.append({"role": "user", "content": text})
        answer = ""
        try:
            with narrated(self.daemon, self.model) as end:
                for piece in self._pieces(end):
                    answer += piece
                    _write(piece)
        finally:
            self._keep(answer)
        if not answer:
            _write("\n")

    def _keep(self, answer: str) -> None:
        """Keep an answer, or the first part of one, and end its last line."""
        if not answer:
            self._said.pop()
            return
        self._said.append({"role": "assistant", "content": answer})
        if not answer.endswith("\n"):
            _write("\n")

    def answer(self, text: str) -> Any:  # noqa: ANN401 -- JSON
        """Send a message to the model, and return its whole answer in the API's form.

        Raises:
            Refused: the request is refused, or its model fails.
            CannotRun: the answer broke off.
        """
        self._said.append({"role": "user", "content": text})
        with narrated(self.daemon, self.model):
            body = self._body(stream=False)
            found = self.daemon.ask("/v1/chat/completions", "POST", body, limit=None)
        if not isinstance(found, dict):  # the model server ended, and its answer had no length
            raise self._broken()
        return found

    def _broken(self) -> CannotRun:
        why = f"'llamadoze logs {self.model}' may say why"
        return CannotRun(f"the answer broke off before its end; {why}")

    def clear(self) -> None:
        """Forget the conversation so far."""
        self._said.clear()

    def _body(self, *, stream: bool) -> dict[str, Any]:
        before = [{"role": "system", "content": self.system}] if self.system else []
        named = {"model": self.model, "stream": stream}
        return {**self.settings, **named, "messages": [*before, *self._said]}

    def _pieces(self, begun: Callable[[], None]) -> Iterator[str]:
        is_thinking = False
        body = self._body(stream=True)
        for line in self.daemon.lines("/v1/chat/completions", "POST", body):
            if not line.startswith(DATA):
                continue
            if (data := line.removeprefix(DATA).strip()) == DONE:
                return
            thought, words = _delta(data)
            if thought and sys.stdout.isatty():
                begun()
                console().print(thought, end="", style="dim")
                is_thinking = True
            if words:
                begun()
                yield f"\n\n{words}" if is_thinking else words
                is_thinking = False
        raise self._broken()


def converse(chat: Chat) -> None:
    """Let the user chat until Ctrl-D, or Ctrl-C at the prompt."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 -- input() then uses it to edit lines
    console(errors=True).print(HELP, style="dim")
    while True:
        try:
            text = _asked()
        except EOFError:
            _write("\n")
            return
        except KeyboardInterrupt:
            _write("\n")
            raise
        if text.strip() == "/clear":
            chat.clear()
        elif text.strip():
            _answered(chat, text)


def _answered(chat: Chat, text: str) -> None:
    """Send a message. Ctrl-C and errors end the answer, but not the chat."""
    try:
        chat.say(text)
    except KeyboardInterrupt:
        _write("\n")
        interrupts.listen()
    except CannotRun as error:
        console(errors=True).print(str(error), style="red")


def _asked() -> str:
    """Return what the user types, which may have several lines between triple quotes."""
    text = input(PROMPT)
    if not text.startswith(QUOTES):
        return text
    lines = [text.removeprefix(QUOTES)]
    while not lines[-1].endswith(QUOTES):
        lines.append(input("... "))
    return "\n".join(lines).removesuffix(QUOTES)


def _delta(data: bytes) -> tuple[str, str]:
    """Return what an event adds to the model's reasoning and to its answer.

    Raises:
        CannotRun: the event reports a failure.
    """
    try:
        event = json.loads(data)
    except ValueError:
        return "", ""
    if error := event.get("error"):
        text = error.get("message") if isinstance(error, dict) else error
        raise CannotRun(f"the answer failed: {text}")
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return delta.get("reasoning_content") or delta.get("reasoning") or "", delta.get(
        "content"
    ) or ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
