"""The views of the configuration never show a secret, whatever the file looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from configschema import parse
from configschema.rules.hiding import without_arguments
from configschema.rules.showing import differences, settings_of
from tests.system.daemon import started, write

MODEL = """
cmd: serve --port ${PORT} --key ${env.A_KEY}
env: [HF_TOKEN=${env.A_KEY}]
controlHeaders: {X-Key: of-a-server}
sleepMode: enable
sleepEndpoints: [{endpoint: /sleep, headers: {Authorization: in-a-step}}]
wakeEndpoints: [{endpoint: /wake_up}]
timeouts: {busy: 30}
aliases: [x]
"""


def test_settings_are_those_that_say_something() -> None:
    """Settings appear under the file's keys; secrets are masked, and variables keep their names."""
    text = "models:\n  m:\n" + "".join(f"    {line}\n" for line in MODEL.strip().splitlines())
    config = parse(text, environ={"A_KEY": "sk-of-the-environment"}).config
    found = settings_of(config, "m")
    assert found["aliases"] == ["x"]
    assert found["timeouts"] == {"busy": 30}
    assert found["controlHeaders"] == {"X-Key": "***"}
    assert found["sleepEndpoints"][0] == {"endpoint": "/sleep", "headers": {"Authorization": "***"}}
    assert found["env"] == ["HF_TOKEN=${env.A_KEY}"]
    assert "${env.A_KEY}" in found["cmd"]
    assert "ttl" not in found
    assert "sk-of-the-environment" not in str(found)


def test_differences_name_both_values() -> None:
    """The differences cover the whole file and each model; a changed secret is masked."""
    old = parse(
        "models: {m: {cmd: 'a ${PORT}', ttl: 5, timeouts: {busy: 1}}, n: {cmd: 'b ${PORT}'}}\n"
        "apiKeys: [k-1]\nmaxWait: 5\n"
    )
    new = parse(
        "models: {m: {cmd: 'a ${PORT} --x', timeouts: {busy: 2}}, n: {cmd: 'b ${PORT}'}}\n"
        "apiKeys: [k-2]\nmaxWait: 5\nglobalTTL: 9\n"
    )
    found = {
        (one.model, one.key): (one.old, one.new) for one in differences(old.config, new.config)
    }
    assert found.pop(("m", "ttl")) == (5, None)
    assert found.pop(("m", "timeouts")) == ({"busy": 1}, {"busy": 2})
    assert found.pop(("", "globalTTL"))[1] == 9
    assert found.pop(("", "apiKeys")) == ([{"key": "***"}], [{"key": "***"}])
    assert found.pop(("m", "cmd")) == ("a 5800", "a 5800 --x")
    assert not found


@pytest.mark.parametrize("is_good", [True, False])
def test_files_are_shown_without_secrets(tmp_path: Path, is_good: bool) -> None:
    """This includes short secrets and files with other errors."""
    peers = {"p": {"proxy": "http://me:pw-1@x", "apiKey": "sk-p", "models": ["z"]}}
    whole = {
        "models": {"m": {"cmd": "sleep 9 ${PORT}"}},
        "apiKeys": ["sk-own", "q7"],
        "peers": peers,
    }
    file = write(tmp_path, **whole)
    with started("--config", file, "--state-dir", str(tmp_path / "s")) as daemon:
        daemon.key = "sk-own"
        if not is_good:
            Path(file).write_text(Path(file).read_text() + "maxWait: soon\n")
        told = daemon.ask("GET", "/api/config")[1]
    assert told["good"] is is_good
    (shown,) = told["files"]
    for secret in ("sk-own", "q7", "sk-p", "pw-1"):
        assert secret not in shown["text"]
        assert secret not in str(told["problems"])
    assert "models:" in shown["text"]
    assert bool(told["problems"]) is not is_good
    if is_good:
        assert told["changes"]["kept"] == ["m"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN=hf_abc", "HF_TOKEN=***"),
        ("serve --api-key sk-1 --port 1", "serve --api-key *** --port 1"),
        ("serve --api_key=sk-1", "serve --api_key=***"),
        ('{"password": "hunter2"}', '{"password": ***}'),
        ("apiKey: sk-1", "apiKey: ***"),
        ("--max-tokens 4096 --tokenizer x", "--max-tokens 4096 --tokenizer x"),
        ("TOKEN=${env.TOKEN}", "TOKEN=${env.TOKEN}"),
        ("--api-key 'two words' --x", "--api-key *** --x"),
        ("--password p#ss", "--password ***"),
        ("--token abc,def", "--token ***"),
        ("--api-key \\\n    sk-1", "--api-key \\\n    ***"),
        ('["--api-key", "sk-1"]', '["--api-key", ***]'),
        ('-H "Authorization: Bearer abc"', '-H "Authorization: Bearer ***"'),
        ("curl -u me:pw http://x", "curl -u *** http://x"),
        (
            "AWS_SECRET_ACCESS_KEY=abc PGPASS=p OPENAI_KEY=k",
            "AWS_SECRET_ACCESS_KEY=*** PGPASS=*** OPENAI_KEY=***",
        ),
        ("http://me:p@ss@host/x", "http://***@host/x"),
        ("http://host/v1?key=k&x=1", "http://host/v1?key=***"),
        ("{token: abc, key: d}", "{token: ***, key: d}"),
        ("GH_PAT=abc --path /x", "GH_PAT=*** --path /x"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/***"),
        (f"run --hf hf_{'a' * 34} now", "run --hf *** now"),
        (f"sk-proj-{'a1' * 20}", "***"),
        ("task-force-of-many-people", "task-force-of-many-people"),
        (f"eyJ{'a' * 20}.eyJ{'b' * 20}.{'c' * 20}", "***"),
        ("serve -c 4096 --keep 5 --cache-type-k q8", "serve -c 4096 --keep 5 --cache-type-k q8"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, shown: str) -> None:
    """In commands and variables, no key of the file marks a value as a secret."""
    assert without_arguments(text) == shown


def test_secrets_are_hidden_however_they_are_spelled() -> None:
    """Secrets may be quoted, escaped, from macros or the environment, and used anywhere."""
    text = r"""
macros: {suffix: part-of-it}
apiKeys: ["sk-${suffix}", 'it''s-a-key', "back\\slash", "tab\u002dkey", ab]
models:
  m:
    cmd: serve --port ${PORT}
    checkEndpoint: /health?x=${env.SEC}
    description: about ${env.SEC}
    metadata: {k: "${env.SEC}", token: of-metadata}
    filters: {setParams: {user: "${env.SEC}"}}
"""
    loaded = parse(text, environ={"SEC": "of-the-environment"})
    shown = loaded.texts()["config"]
    for secret in ("part-of-it", "it''s-a-key", "back", "tab", ", ab]"):
        assert secret not in shown
    settings = str(settings_of(loaded.config, "m"))
    assert "of-the-environment" not in settings
    assert "of-metadata" not in settings
    assert "/health?x=${env.SEC}" in settings


def test_a_file_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    """The places of its secrets are unknown; the problem is reported nevertheless."""
    file = write(tmp_path, models={"m": {"cmd": "sleep 9 ${PORT}"}}, apiKeys=["sk-own"])
    with started("--config", file, "--state-dir", str(tmp_path / "s")) as daemon:
        daemon.key = "sk-own"
        Path(file).write_text(Path(file).read_text() + "a: [unclosed\n")
        told = daemon.ask("GET", "/api/config")[1]
    assert (told["good"], told["files"]) == (False, [])
    assert "not valid YAML" in told["problems"][0]["message"]
    assert "sk-own" not in str(told)
