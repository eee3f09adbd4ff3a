"""Commands of a container engine: which container they run, and how to reach that container.

Owns how ``docker run`` and its like are read. Runs nothing. `simplecommands` reads wrappers and
scripts around the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import attrs

from configschema.keys.simplecommands import Simple, last_command, word_set, words_behind

ENGINES = frozenset({"docker", "podman", "nerdctl"})
_GLOBAL = word_set(
    "-c -H -l -n -a --config --context --host --log-level --tlscacert --tlscert --tlskey "
    "--connection --url --identity --root --runroot --runtime --runtime-flag "
    "--storage-driver --storage-opt --imagestore --cgroup-manager --conmon "
    "--events-backend --hooks-dir --module --namespace --network-cmd-path "
    "--network-config-dir --tmpdir --volumepath --out --ssh --address --data-root "
    "--cni-path --cni-netconfpath --hosts-dir --snapshotter"
)
"""The engines' own options that take the next word."""
_FLAGS = word_set(
    "--detach --interactive --tty --rm --init --privileged --read-only --publish-all "
    "--no-healthcheck --oom-kill-disable --sig-proxy --disable-content-trust --quiet "
    "--help --use-api-socket --replace --rmi --rootfs --tls --tls-verify --no-hosts "
    "--no-hostname --http-proxy --env-host --read-only-tmpfs --passwd --unsetenv-all "
    "--insecure-registry"
)
"""The options of ``run`` without a value. Any other one without ``=`` takes the next word."""
_SHORT = {
    "d": "--detach",
    "i": "--interactive",
    "t": "--tty",
    "P": "--publish-all",
    "q": "--quiet",
    "e": "--env",
    "p": "--publish",
    "v": "--volume",
    "h": "--hostname",
    "u": "--user",
}
_TRUE = frozenset({"", "1", "t", "true"})


@attrs.frozen(kw_only=True)
class Container:
    """A container that a command runs.

    Attributes:
        engine: the words before a verb of the engine, such as ``("sudo", "docker")``.
        name: its name; empty without one.
        cidfile: the file that the engine writes its id to; empty without one.
        detached: whether the client ends at once and the container goes on.
        variables: its environment variables; None means the client's value.
        has_env_file: whether further variables come from a file or from the whole host.
        has_init: whether the engine runs a small init before its command.
            is_removed: whether it is removed when it ends, or replaced by the next container of its
                name.
        ports: its published ports.
        network: its network; empty for the default one.
        image: its image.
        command: the words after the image.
    """

    engine: tuple[str, ...]
    name: str = ""
    cidfile: str = ""
    detached: bool = False
    variables: Mapping[str, str | None] = attrs.field(factory=dict, repr=False)
    has_env_file: bool = False
    has_init: bool = False
    is_removed: bool = False
    ports: tuple[str, ...] = ()
    network: str = ""
    image: str = ""
    command: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def program(self) -> str:
        """The engine's name."""
        names = (word.rpartition("/")[2] for word in self.engine)
        return next((name for name in names if name in ENGINES), "")

    def stop_argv(self, grace: float, container_id: str = "") -> tuple[str, ...] | None:
        """Return the command that ends it within a grace; None without a known id or name."""
        seconds = str(math.ceil(grace))
        known = self._known(container_id)
        return (*self.engine, "stop", "-t", seconds, known) if known else None

    def inspect_argv(self, container_id: str = "") -> tuple[str, ...] | None:
        """Return the command that prints its process and id; None without a known id or name."""
        known = self._known(container_id)
        return (*self.engine, "inspect", "-f", "{{.State.Pid}} {{.Id}}", known) if known else None

    def _known(self, container_id: str) -> str:
        # The value that a shell would insert is not known here.
        return container_id or ("" if "$" in self.name else self.name)


def container_of(argv: Sequence[str]) -> Container | None:
    """Return the container that a command runs; None if there is none, or it cannot be read."""
    command = last_command(argv)
    words = verb_of(command) if command else ()
    if command is None or words[:1] != ("run",):
        return None
    given, rest = _options(words[1:])
    return _container(engine_of(command), given, rest)


def engine_of(command: Simple) -> tuple[str, ...]:
    """Return the words that a further command to the same engine begins with."""
    own = words_behind(command.words[1:], _GLOBAL)
    return (*command.kept, *command.words[: 1 + own])


def verb_of(command: Simple) -> tuple[str, ...]:
    """Return the words of an engine's command from its verb on; none for other programs."""
    if command.program not in ENGINES:
        return ()
    words = command.words[1 + words_behind(command.words[1:], _GLOBAL) :]
    return words[1:] if words[:1] == ("container",) else words


def _container(
    engine: tuple[str, ...], given: Sequence[tuple[str, str]], rest: tuple[str, ...]
) -> Container:
    def last(option: str) -> str:
        return next((value for name, value in reversed(given) if name == option), "")

    def has(option: str) -> bool:
        found = [value for name, value in given if name == option]
        return bool(found) and found[-1].lower() in _TRUE

    return Container(
        engine=engine,
        name=last("--name"),
        cidfile=last("--cidfile"),
        detached=has("--detach"),
        variables=_variables(value for name, value in given if name == "--env"),
        has_env_file=has("--env-host") or bool(last("--env-file")),
        has_init=has("--init"),
        is_removed=has("--rm") or has("--replace"),
        ports=tuple(value for name, value in given if name == "--publish"),
        network=last("--network") or last("--net"),
        image=rest[0] if rest else "",
        command=rest[1:],
    )


def _variables(entries: Iterator[str]) -> dict[str, str | None]:
    pairs = (entry.partition("=") for entry in entries)
    return {name: value if equals else None for name, equals, value in pairs}


def _options(words: tuple[str, ...]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Return the options with their values, and the words from the image on."""
    given: list[tuple[str, str]] = []
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        name, value = _long(words[at]) if words[at].startswith("--") else _short(words[at], given)
        at += 1
        if name and value is None:
            value = words[at] if at < len(words) else ""
            at += 1
        if name:
            given.append((name, value or ""))
    return given, words[at + 1 if words[at : at + 1] == ("--",) else at :]


def _long(word: str) -> tuple[str, str | None]:
    """Return an option and its value; None if the value is the next word."""
    name, equals, value = word.partition("=")
    return name, value if equals else "" if name in _FLAGS else None


def _short(word: str, given: list[tuple[str, str]]) -> tuple[str, str | None]:
    """Read ``-dit`` and ``-eA=b``; return the option with a value, if there is one."""
    for at, letter in enumerate(word[1:], 2):
        name = _SHORT.get(letter, f"-{letter}")
        rest = word[at:]
        if name not in _FLAGS:
            return name, rest.removeprefix("=") if rest else None
        if rest.startswith("="):
            return name, rest[1:]
        given.append((name, ""))
    return "", None
