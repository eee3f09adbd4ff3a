"""Rules for access to the daemon: API keys, names of this machine, pages of other sites.

Owns the checks of API keys and host names, and those that llama-swap has for ``security.cors``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from configschema.keys.clients import Cors
from configschema.keys.schema import Config
from configschema.text.problems import Fault, Path

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_ORIGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(:[0-9]{1,5})?"
)
_HIGHEST_PORT = 65535
_NAME = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+")
_KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_security(config: Config) -> Iterator[Fault]:
    """Yield each broken rule."""
    yield from _keys(config)
    for number, host in enumerate(config.security.hosts):
        if not _NAME.fullmatch(host):
            message = "expected a name such as llm.home.example, without port, found {}"
            yield Fault(("security", "hosts", number), message, (host,))
    if config.security.cors is not None:
        yield from _cors(config.security.cors, ("security", "cors"))


def _is_origin(text: str) -> bool:
    found = _ORIGIN.fullmatch(text)
    return found is not None and int((found[2] or ":0")[1:]) <= _HIGHEST_PORT


def _keys(config: Config) -> Iterator[Fault]:
    names: dict[str, int] = {}
    for number, one in enumerate(config.api_keys):
        path: Path = ("apiKeys", number)
        if not one.value:
            yield Fault(path, "the key is empty")
        elif " " in one.value:
            yield Fault(path, "a key cannot contain spaces")
        if one.name and not _KEY_NAME.fullmatch(one.name):
            message = "a name is 1 to 64 letters, digits, '.', '_' or '-', found {}"
            yield Fault((*path, "name"), message, (one.name,))
        elif one.name and one.name in names:
            first: Path = ("apiKeys", names[one.name])
            yield Fault(
                (*path, "name"), "another key has the name {} already", (one.name,), also=first
            )
        names.setdefault(one.name, number)
        if not one.name and (one.requests_per_minute or one.in_flight or one.share != 1):
            yield Fault(path, "a key with limits or a share needs a name")


def _cors(cors: Cors, path: Path) -> Iterator[Fault]:
    allowed = cors.allowed_origins
    for number, origin in enumerate(allowed or ()):
        if origin != "*" and not _is_origin(origin):
            message = "expected * or scheme://host[:port], without a path, found {}"
            yield Fault((*path, "allowedOrigins", number), message, (origin,))
    if allowed == ():
        yield Fault((*path, "allowedOrigins"), "expected at least one origin, or *")
    if cors.allow_credentials and (allowed is None or "*" in allowed):
        message = "browsers refuse credentials with *: list the origins in allowedOrigins"
        yield Fault((*path, "allowCredentials"), message)
    lists = {
        "allowedMethods": cors.allowed_methods,
        "allowedHeaders": cors.allowed_headers,
        "exposedHeaders": cors.exposed_headers,
    }
    for key, words in lists.items():
        for number, word in enumerate(words):
            if not _TOKEN.fullmatch(word):
                yield Fault((*path, key, number), "expected one word, found {}", (word,))
