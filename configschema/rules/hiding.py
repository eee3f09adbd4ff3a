"""Values that look like secrets although no key of the file says that they are.

Owns the names and the forms that give a secret away. `showing` decides how the file is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from configschema.text.problems import HIDDEN

_VALUE = (
    r"""(\\"[^"\n]{0,1000}\\"|"[^"\n]{0,1000}"|'[^'\n]{0,1000}'"""
    r"""|[^\s"'$][^\s"']{0,1000}?(?=[,\])}]{0,3}(?:[\s"']|$)))"""
)
_NAMES = "(?:token|secret|password|passwd|pass|pwd|credential|[-_]pat|webhook|[-_?&]key|api_?key)"
_PATTERNS = {
    rf"""({_NAMES}\\?["']?"""
    r"""(?:[ \t]{0,8}[=:][ \t]{0,8}|[ \t]{1,8}(?:\\\n[ \t]{0,80})?|,[ \t]{0,8}))""" + _VALUE: (
        *("token", "secret", "pass", "pwd", "key", "credential", "-pat", "_pat", "webhook"),
    ),
    r"""(authorization["']?[ \t]{0,8}[=:][ \t]{0,8}["']?"""
    r"""(?:(?:bearer|basic|token)[ \t]{1,8})?)([^\s"'$]{1,1000})""": ("authorization",),
    r"((?:^|\s)(?:-u|--user)[ \t]{1,8})" + _VALUE: (" -u", "--user"),
    r"""(//)([^/\s"']{1,300})(?=@)""": ("@",),
    r"(//hooks\.[\w.-]{1,80}/)([^\s\"']{8,300})": ("//hooks.",),
    r"()(?<![\w-])((?:hf_|sk-|gh[opsru]_|github_pat_|glpat-|nvapi-|xox[abprs]-)[\w-]{16,300})": (
        *("hf_", "sk-", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "_pat_", "glpat-", "nvapi-", "xox"),
    ),
    r"()(?<![\w-])((?:AKIA[0-9A-Z]{16}|AIza[\w-]{35}|eyJ[\w-]{10,1000}(?:\.[\w-]{10,2000}){2}))": (
        *("akia", "aiza", "eyj"),
    ),
}
"""The patterns of secrets: values behind a name that ends like a secret's, such as ``HF_TOKEN=`` or
``--api-key``; the value of ``Authorization``; the login in an address, and the secret part of a
webhook; keys in the forms of Hugging Face, OpenAI, GitHub, GitLab, NVIDIA, Slack, Amazon and
Google. Each pattern has words with it, in lower case. It is compiled only for a text that has one
of them, because compiling is slow."""
SHORTEST = 6  # characters of a value that is hidden everywhere in the file
_MACRO = "${"
NO_SECRETS = ("none", "null", "true", "false", "empty", "not-needed", HIDDEN)


def without_arguments(text: str) -> str:
    """Return a text with stars in place of what looks like a secret."""
    for pattern in _patterns_for(text):
        text = re.sub(pattern, rf"\g<1>{HIDDEN}", text, flags=re.IGNORECASE)
    return text


def _patterns_for(text: str) -> list[str]:
    lowered = text.lower()
    found = (name for name, hints in _PATTERNS.items() if any(one in lowered for one in hints))
    return list(found)


def looks_secret(key: str) -> bool:
    """Whether a name stands for a secret or for several: ``HF_TOKEN``, ``credentials``."""
    names = (key, key.rstrip("sS"))
    return any(word in key.lower() for word in ("secret", "passw")) or any(
        without_arguments(f"-{name}=x") != f"-{name}=x" for name in names
    )


def secrets_among(data: object) -> Iterator[str]:
    """Yield the values of a file that look like secrets: whole values, and parts of texts."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts_in(value) if looks_secret(str(key)) else secrets_among(value)
    elif isinstance(data, list):
        for one in data:
            yield from secrets_among(one)
    elif isinstance(data, str):
        for pattern in _patterns_for(data):
            for found in re.finditer(pattern, data, re.IGNORECASE):
                yield from _texts_in(found[2].strip("\\\"'"))


def _texts_in(value: Any) -> Iterator[str]:  # noqa: ANN401 -- plain data
    """Yield all texts in a value that may be secrets. A number of tokens is no secret."""
    if isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(one)
    elif isinstance(value, str):
        text = value.strip()
        is_word = text.isdigit() or text.lower() in NO_SECRETS or _MACRO in text
        if len(text) >= SHORTEST and not is_word:
            yield from {value, text}
