"""Each command that the documentation prints is run as printed, or has a reason why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.demo.weights import write_model
from tests.conftest import STUB
from tests.deploy.printed import (
    NOT_RUN,
    PAGES,
    PROGRAMS,
    ROOT,
    Step,
    script_of,
    steps_of,
    trace_of,
    why_not_run,
)
from tests.proxy.certificates import make_certificate

SERVERS = ("vllm", "llama-server")
CONFIG = """\
models:
  chat:
    cmd: vllm serve org/chat-7b --port ${PORT}
    sleep: vllm
    verify: {gpuMemory: false}
  code:
    cmd: llama-server --port ${PORT} -m models/tiny.gguf
  small:
    cmd: llama-server --port ${PORT} -m models/tiny.gguf
"""
STAND_IN = f"""\
#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --port ] && port=$2; shift; done
exec {sys.executable} -I -S {STUB} --port "$port"
"""
NEEDS = (shutil.which("unshare"), shutil.which("curl"), shutil.which("bash"))
LOOPBACK = (
    "import fcntl, socket, struct, os, sys;"
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x41));"  # SIOCSIFFLAGS, up
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def run_here(page: str) -> list[Step]:
    return [one for one in steps_of(page) if not one.is_file and not why_not_run(one.text)]


def sandbox(folder: Path) -> dict[str, str]:
    """Make a folder that stands for a clone, a home, and programs that stand for model servers."""
    clone, home, programs = (folder / name for name in ("clone", "home", "bin"))
    for made in (clone, home, programs):
        made.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("models", "config.yaml"):
            (clone / entry.name).symlink_to(entry)
    for name in SERVERS:
        program = programs / name
        program.write_text(STAND_IN)
        program.chmod(0o755)
    (home / ".local/share/bash-completion/completions").mkdir(parents=True)
    (home / ".config/fish/completions").mkdir(parents=True)
    for models in (clone / "models", home / "models"):
        models.mkdir()
        write_model(models / "tiny.gguf", name="tiny", seed=1)
    make_certificate(clone)
    (clone / "config.yaml").write_text(CONFIG)
    (clone / "trace.csv").write_text(trace_of(CONFIG))
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
    return {**kept, "PATH": path, "HOME": str(home), "PYTHONUNBUFFERED": "1"}


def test_every_command_is_run_or_named_with_why_not() -> None:
    """This includes commands that are added later, and each reason applies to a command."""
    commands = [step.text for page in PAGES for step in steps_of(page) if not step.is_file]
    assert len(commands) > 80
    for start in NOT_RUN:
        assert any(re.match(start, command) for command in commands), start


def test_an_indented_block_holds_commands_alone() -> None:
    """Output and files are in fenced blocks, because a reader copies a block as a whole."""
    for page in PAGES:
        for step in steps_of(page):
            words = re.sub(r"^(\w+=\S+ )*", "", step.text).split()
            assert step.is_file or words[0].rpartition("/")[2] in PROGRAMS, f"{page}:{step.line}"


@pytest.mark.deploy
@pytest.mark.skipif(not all(NEEDS), reason="unshare, curl or bash is missing")
@pytest.mark.parametrize("page", [page for page in PAGES if run_here(page)])
def test_the_commands_of_a_page_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    """Each command succeeds, in the order of the page and on the port that the page names."""
    env, script = sandbox(tmp_path), tmp_path / "script"
    script.write_text(script_of(page))
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", LOOPBACK, "bash", str(script)],
        stdin=subprocess.DEVNULL,
        env=env,
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    told = re.findall(r"^@@ (\d+) (\d+)$", done.stdout, re.MULTILINE)
    run = run_here(page)
    assert [int(line) for line, _ in told] == [step.line for step in run], done.stdout + done.stderr
    failed = [step.text for step, (_, status) in zip(run, told, strict=True) if status != "0"]
    assert failed == [], done.stdout + done.stderr
