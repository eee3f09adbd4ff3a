"""``llamadoze serve`` and ``llamadoze demo``: the daemon in the foreground.

Owns which options start it. The daemon's modules are imported only when they are needed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.command import sources
from proxy.command.options import configured, examples, refusing_malformed, serving
from proxy.lifecycle.startup import CannotRun

if TYPE_CHECKING:
    from proxy.http.addresses import Address


@click.command(
    epilog=examples(
        "llamadoze serve",
        "llamadoze serve --config models.yaml --listen :8080",
        "llamadoze serve --listen unix:/run/llamadoze/llamadoze.sock",
    )
)
@configured
@serving
def serve(config: str | None, config_dir: str | None, **options: Any) -> None:  # noqa: ANN401 -- click's
    """Serve the models of a configuration.

    Ctrl-C or SIGTERM ends it. You can leave out 'serve': 'llamadoze --config FILE' serves, too.
    """
    names = sources.named(config, config_dir)
    files = [name for name in names if name != config_dir]
    _run(options, names, partial(sources.sources, files, config_dir))


@click.command(epilog=examples("llamadoze demo", "llamadoze demo --listen 127.0.0.1:9000"))
@click.option(
    "--folder", default=".demo", show_default=True, metavar="DIR", help="The folder for its files."
)
@serving
def demo(folder: str, **options: Any) -> None:  # noqa: ANN401 -- click's
    """Serve two tiny models on real llama.cpp servers."""
    from proxy.demo.prepare import MODELS, prepare, told_by
    from supervisor.processes.ports import HOST, is_free, kept_free

    listen = options["listen"]
    port = _address(listen).port
    if port and not is_free(HOST, port):  # before advice about that address is printed
        taken = "Address already in use; choose another with --listen"
        raise CannotRun(f"cannot listen on {listen}: {taken}")
    with kept_free(len(MODELS)) as first_port:
        file = prepare(Path(folder), listen, first_port)
        options["state_dir"] = options["state_dir"] or str(file.parent / "state")
        _run(options, (str(file),), lambda: [file], grace=1.0)
        sys.stdout.write(told_by(file, Path(options["state_dir"])))


def _run(
    options: Mapping[str, Any],
    named: tuple[str, ...],
    find: Callable[[], list[Path]],
    **more: float,
) -> None:
    """Run the daemon. `find` returns its files, now and at each reload."""
    gc.enable()
    address = _address(options["listen"])
    _load_structlog()
    from proxy.daemon.launch import Options, launch
    from proxy.lifecycle.reloading import Files

    wanted = Options(
        listen=options["listen"],
        named=named,
        log_format=options["log_format"],
        log_level=options["log_level"],
        state_dir=options["state_dir"],
        certificate=options["tls_cert_file"],
        key=options["tls_key_file"],
        watch=options["watch_config"],
    )
    with refusing_malformed():
        launch(wanted, address, Files(find, partial(sources.read, port=address.port)), **more)


def _load_structlog() -> None:
    """Load structlog without rich, which structlog loads for tracebacks that are not used here.

    That saves a sixth of the time until the daemon listens, and a tenth of its memory.
    """
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes imports of it fail
    try:
        import structlog  # noqa: F401 -- so that it is loaded
    finally:
        del sys.modules["rich"]


def _address(text: str) -> Address:
    from proxy.http.addresses import Address

    try:
        return Address.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--listen {text}: {error}") from None
