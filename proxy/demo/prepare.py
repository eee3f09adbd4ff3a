"""The demo's start: check the machine, write two models and a configuration, print advice."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from statistics import mean

from configschema import ConfigError, load
from proxy.lifecycle.startup import CannotRun
from supervisor.states.durations import seconds
from supervisor.succession.knowledge import Knowledge

MODELS = {"doze-a": 1, "doze-b": 2}

CONFIG = """\
# Written by the demo. For vLLM, you would write the same sleep commands.
macros:
  serve: "'{python}' -m proxy.demo.server --port ${{PORT}} --model"
  sleep: "curl -fsS -X POST http://127.0.0.1:${{PORT}}/sleep?level=1"
  wake: "curl -fsS -X POST http://127.0.0.1:${{PORT}}/wake_up"
startPort: {port}
models:
"""
MODEL = """\
  {name}:
    cmd: ${{serve}} "{file}"
    proxy: http://127.0.0.1:${{PORT}}
    cmdSleep: ${{sleep}}
    cmdWake: ${{wake}}
    cmdSleepTimeout: 30
    cmdWakeTimeout: 30
    verify:
      asleep: [{{endpoint: /is_sleeping, holds: is_sleeping}}]
      awake: [{{endpoint: /is_sleeping, holds: "!is_sleeping"}}]
"""
ADVICE = """\
Two llama.cpp servers with tiny random models, one awake at a time. Their answers make no sense.
In another terminal, run these commands in turn, and watch the log here:

  curl -s http://{listen}/v1/chat/completions -H 'Content-Type: application/json' -d '{{"model": "doze-a", "messages": [{{"role": "user", "content": "hi"}}]}}'
  curl -s http://{listen}/v1/chat/completions -H 'Content-Type: application/json' -d '{{"model": "doze-b", "messages": [{{"role": "user", "content": "hi"}}]}}'
  curl -s http://{listen}/running

The first starts doze-a. The second puts doze-a to sleep and starts doze-b. Run the first again:
doze-a wakes, with the same process id. The page http://{listen}/ui/ shows what happened.
Ctrl-C ends the demo.

"""  # noqa: E501 -- lines to copy whole


def prepare(folder: Path, listen: str, first_port: int) -> Path:
    """Write the demo's missing files, print what to try, and return the configuration.

    Args:
        folder: the folder for the files.
        listen: the address that the daemon will serve.
        first_port: the first of the models' ports; each model has one.

    Raises:
        CannotRun: the machine lacks a program or a package.
    """
    _require()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in MODELS.items():
        _write_model(folder / f"{name}.gguf", name, seed)
    file = folder / "config.yaml"
    file.write_text(_config(folder, first_port))
    sys.stdout.write(f"Configuration: {file}\n\n" + ADVICE.format(listen=listen))
    sys.stdout.flush()
    return file


def told_by(file: Path, state: Path) -> str:
    """Return what starts and wakes have cost in the demo; nothing if that is not known.

    Args:
        file: the demo's configuration.
        state: the state folder of its daemon, which has measured them.
    """
    knowledge = Knowledge(state / "learned.json")
    try:
        models = load(file).config.models.values()
    except (OSError, ConfigError):  # the folder was removed or changed meanwhile
        return ""
    costs = [knowledge.recall(model).costs for model in models]
    starts = [one.start for one in costs if one.start is not None]
    wakes = [one.wake for one in costs if one.wake is not None]
    if not starts:
        return ""
    start = f"A start of a model took {seconds(mean(starts))}"
    if not wakes:
        return f"{start}. No model was woken: ask doze-a, doze-b, and doze-a again.\n"
    return f"{start}, and a wake took {seconds(mean(wakes))}.\n"


def _require() -> None:
    if shutil.which("curl") is None:
        raise CannotRun(
            "the demo needs curl for its sleep and wake commands: install curl "
            "(Debian and Ubuntu: apt install curl), and try again"
        )
    missing = [m for m in ("xllamacpp", "gguf", "numpy") if importlib.util.find_spec(m) is None]
    if missing:
        raise CannotRun(
            f"the demo needs {', '.join(missing)}: install llamadoze with its extra 'demo'. In a "
            "clone: uv tool install --reinstall '.[gpu,demo]', or pip install '.[demo]'"
        )


def _write_model(file: Path, name: str, seed: int) -> None:
    if file.exists():
        return
    from proxy.demo.weights import write_model

    write_model(file, name=name, seed=seed)
    sys.stdout.write(f"Wrote {file} ({file.stat().st_size:,} bytes of random weights)\n")


def _config(folder: Path, first_port: int) -> str:
    models = [MODEL.format(name=name, file=folder / f"{name}.gguf") for name in MODELS]
    return CONFIG.format(python=sys.executable, port=first_port) + "".join(models)
