from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests import ports
from tests.fakes import FakePrograms

settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("steady")

# As in the daemon: structlog's default with rich takes seconds to show the values of variables.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

STUB = Path(__file__).parent / "peers/stub.py"


def stub_command(*options: str) -> str:
    """Return a ``cmd`` that starts the stub model server."""
    return shlex.join([sys.executable, "-I", "-S", str(STUB), *options]).replace(
        "'${PORT}'", "${PORT}"
    )


ports_of_a_module = pytest.fixture(ports.given_back, scope="module", autouse=True)
ports_of_a_test = pytest.fixture(ports.given_back, autouse=True)


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, object]]]:
    """The lines that the daemon logs."""
    with structlog.testing.capture_logs() as entries:
        yield entries  # type: ignore[misc] # structlog's mappings are dicts


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    """Fake processes in place of real ones."""
    fakes = FakePrograms()
    fakes.install(monkeypatch)
    return fakes


# All processes that these tests start have this in their environment, and no others have.
RUN = f"{uuid.uuid4()}"
os.environ["LLAMADOZE_TESTS"] = RUN


def processes_with(word: str) -> list[str]:
    """Return the living processes of these tests that have this word in their command."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                is_ours = RUN.encode() in (folder / "environ").read_bytes()
            except (OSError, IndexError):
                continue
            if word in line and state != "Z" and is_ours:
                found.append(f"{folder.name} {line}")
    return found
