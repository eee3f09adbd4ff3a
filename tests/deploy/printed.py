"""The commands of a page of the documentation, and a shell script that runs them as printed.

Owns which parts of a page are commands: each line of an indented block, or of a block fenced as
``sh``. Any other fenced block is output or a file. A block of YAML with ``models:`` at its top is
``config.yaml`` from there on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import attrs
import yaml

ROOT = Path(__file__).parents[2]
DOCS = sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", *DOCS)
PROGRAMS = {
    *(
        "llamadoze",
        "make",
        "git",
        "curl",
        "promtool",
        "sudo",
        "systemctl",
        "docker",
        "ollama",
        "nginx",
        "caddy",
        "haproxy",
    ),
    *("uv", "pipx", "pip", "python", "python3", "pytest"),
    *("open-webui", "litellm", "aider", "codex", "claude"),
    *(
        ".",
        "cat",
        "cd",
        "cp",
        "echo",
        "export",
        "kill",
        "ln",
        "mkdir",
        "openssl",
        "sha256sum",
        "sleep",
    ),
}
"""Programs that may begin a line of an indented block. Anything else belongs in a fenced block."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAYS = re.compile(r"(\w+=\S+ )*llamadoze (serve|demo|--config|--tls)")
ASKS = re.compile(
    r"curl .*127\.0\.0\.1|llamadoze "
    "(ps|top|run|load|wake|sleep|unload|pin|unpin|status|logs|pause|resume|reload)"
)
LISTENS = re.compile(r"--listen \S*?:(\d+)")
INSTALLS = r"uv |pipx |pip |python3 -m venv|\S*/bin/pip |\. venv/bin/activate"
NOT_RUN = {
    r"sudo |systemctl |apt |ssh |git clone": "changes the machine, or needs another one",
    INSTALLS: "`make test-release` installs",
    r"make |promtool ": "a target of its own, see test_prometheus",
    r"docker |podman |nerdctl |buildah ": "needs an engine",
    r"curl \S* \S*/upstream/gemma3-4b/": "needs Ollama",
    r"ollama |python -m tests|\.venv/bin/": "needs Ollama, or takes minutes",
    r"llamadoze simulate --config plan/": "needs the plan, which takes minutes to make",
    r"git |sha256sum |PIP_CONSTRAINT|cd llamadoze-": "publishes a release",
    r"open-webui |litellm |aider |codex |claude ": "a client that was tried by hand",
    r"nginx |caddy |haproxy ": "a front of its own, see test_reverse_proxies",
}
"""Commands that are not run here, with the reasons."""


@attrs.frozen
class Step:
    """A command, or a file that is written.

    Attributes:
        text: of the command or the file.
        line: of the page, from 1.
        is_file: whether it is ``config.yaml``.
    """

    text: str
    line: int
    is_file: bool = False


def steps_of(page: str) -> Iterator[Step]:
    """Yield what a reader of a page runs and writes, in the page's order."""
    text = (ROOT / page).read_text()
    found = [*_files(text), *_commands(text)]
    yield from sorted(found, key=lambda step: step.line)


def _files(text: str) -> Iterator[Step]:
    for block in FENCED.finditer(text):
        if block[1] == "yaml" and re.search("^models:", block[2], re.MULTILINE):
            yield Step(block[2], _line(text, block.start()), is_file=True)


def _commands(text: str) -> Iterator[Step]:
    without = FENCED.sub(_indented, text)
    for block in re.finditer(r"(?<=\n\n)((?:    .*\n|\n(?=    ))+)", without):
        lines = block[1].replace("\\\n", " " * 2).split("\n")
        whole, began = "", 0
        for number, line in enumerate(lines):
            whole, began = (whole + "\n" + line[4:], began) if whole else (line[4:], number)
            if _is_whole(whole):
                if whole.strip():
                    yield Step(whole.strip(), _line(text, block.start()) + began)
                whole = ""


def _indented(block: re.Match[str]) -> str:
    """Return a fenced block for the shell as an indented one, and any other as empty lines."""
    if block[1] != "sh":
        return re.sub("[^\n]", "", block[0])
    lines = ["    " + line if line else line for line in block[2].split("\n")]
    return "\n" + "\n".join(lines)


def _is_whole(command: str) -> bool:
    """Whether a command is complete, and not in the middle of quotes or of a here-document."""
    here = re.search(r"<<'?(\w+)'?", command)
    if here:
        return command.endswith(f"\n{here[1]}")
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def why_not_run(command: str) -> str:
    """Return why a command is not run here, or nothing if it is run."""
    return next((why for start, why in NOT_RUN.items() if re.match(start, command)), "")


def script_of(page: str) -> str:
    """Return a script for bash that runs a page's commands; each prints ``@@ LINE STATUS``."""
    lines = [PRELUDE]
    for step in steps_of(page):
        if step.is_file:
            lines.append(f"configure <<'END_OF_FILE'\n{step.text}END_OF_FILE")
            lines.append(f"cat >trace.csv <<'END_OF_FILE'\n{trace_of(step.text)}END_OF_FILE")
        elif not why_not_run(step.text):
            lines += [_run(step.text), f'printf "\\n@@ %s %s\\n" {step.line} $?']
    return "\n".join([*lines, "end", ""])


def trace_of(config: str) -> str:
    """Return a trace of requests for all models of a configuration."""
    models = list(yaml.safe_load(config)["models"])
    rows = [f"{5 * n},{model},2\n" for n, model in enumerate(models * 3)]
    return "".join(["at,model,took\n", *rows])


def _run(command: str) -> str:
    if STAYS.match(command):
        port = LISTENS.search(command)
        return f"begin {port[1] if port else 8080} {shlex.quote(command)}"
    if ASKS.match(command):
        return f"be_there; {command}"
    if command.startswith("llamadoze init"):
        return f"rm -f config.yaml; {command}"
    return command


PRELUDE = r"""
CHILD=
end() { if [ -n "$CHILD" ]; then kill -INT "$CHILD"; wait "$CHILD"; CHILD=; fi; true; }
begin() {
    end
    (trap - INT; eval "exec env $2") >daemon.log 2>&1 & CHILD=$!
    for _ in $(seq 300); do
        curl -skf "http://127.0.0.1:$1/health" >/dev/null && return
        curl -skf "https://127.0.0.1:$1/health" >/dev/null && return
        kill -0 "$CHILD" 2>/dev/null || break
        sleep 0.1
    done
    cat daemon.log; return 1
}
be_there() { [ -n "$CHILD" ] || begin 8080 "llamadoze serve"; }
configure() { cat >config.yaml; end; }
"""
