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
from tests.conftest import STUB, processes_with
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
from tests.system.daemon import wait_for

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
exec {sys.executable} -I -S {STUB} --port "$port" --talk 0
"""
REFUSED = {"curl -s http://127.0.0.1:8080/api/tags"}
"""What the page says gets an error."""
PATIENCE = 300  # seconds; the tutorial takes a minute on two cores that have other work, too
APART = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Namespaces of the network and of processes: all that a page starts ends with its script."""
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
    (home / ".curlrc").write_text("fail\n")  # an answer with an error's status is a failure
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


def run_apart(script: Path, env: dict[str, str], limit: float) -> subprocess.CompletedProcess[str]:
    """Run a script where it has a network and processes of its own."""
    return subprocess.run(
        [*APART, sys.executable, "-c", LOOPBACK, "bash", str(script)],
        stdin=subprocess.DEVNULL,
        env=env,
        cwd=script.parent / "clone",
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


def may_be_apart() -> bool:
    """Whether namespaces can be made here: most containers do not let one, nor all users."""
    return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.deploy
@pytest.mark.timeout(PATIENCE + 30)
@pytest.mark.skipif(not all(NEEDS), reason="unshare, curl or bash is missing")
@pytest.mark.parametrize("page", [page for page in PAGES if run_here(page)])
def test_the_commands_of_a_page_do_what_the_page_says(page: str, tmp_path: Path) -> None:
    """Each command succeeds, in the order of the page and on the port that the page names."""
    if not may_be_apart():
        pytest.skip("no namespaces can be made here: run this as root, outside of a container")
    env, script = sandbox(tmp_path), tmp_path / "script"
    script.write_text(script_of(page))
    done = run_apart(script, env, PATIENCE)
    told = re.findall(r"^@@ (\d+) (\d+)$", done.stdout, re.MULTILINE)
    run = run_here(page)
    assert [int(line) for line, _ in told] == [step.line for step in run], done.stdout + done.stderr
    failed = {step.text for step, (_, status) in zip(run, told, strict=True) if status != "0"}
    refused = {step.text for step in run} & REFUSED
    assert failed == refused, done.stdout + done.stderr


@pytest.mark.deploy
@pytest.mark.skipif(not all(NEEDS), reason="unshare, curl or bash is missing")
def test_a_script_that_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    """Not even what has a session of its own."""
    if not may_be_apart():
        pytest.skip("no namespaces can be made here: run this as root, outside of a container")
    (tmp_path / "clone").mkdir()
    script = tmp_path / "script"
    script.write_text("setsid sleep 54321 >here 2>&1 & sleep 54321")
    env = {"PATH": os.environ["PATH"], "LLAMADOZE_TESTS": os.environ["LLAMADOZE_TESTS"]}
    with pytest.raises(subprocess.TimeoutExpired):
        run_apart(script, env, 2)
    wait_for(lambda: processes_with("sleep 54321") == [])
