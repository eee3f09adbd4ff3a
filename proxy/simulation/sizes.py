"""How much memory a simulation has, and how much its models take: from options, file and state.

Owns which of these sources counts. The supervisor's simulation uses the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import attrs

from configschema import Config, Model
from proxy.lifecycle.startup import CannotRun, Malformed
from supervisor.room.choice import said_by
from supervisor.room.space import HOST, Space
from supervisor.states.footprint import Footprint
from supervisor.states.learned import NOTHING_LEARNED, Learned
from supervisor.states.snapshot import Need
from supervisor.succession.knowledge import Knowledge

GIB = 1 << 30
WITHOUT_END = 1 << 60  # bytes of a host whose memory was not given
Size = tuple[int, int | None]
"""Bytes that a model takes awake, and bytes that it keeps asleep, if given."""


@attrs.frozen(kw_only=True)
class Played:
    """The command line's options for a simulation. See the help of each option.

    Attributes:
        trace: file of the requests; None if they are in a log.
        log: file of the daemon's log.
        max_wait: seconds that replace the file's value.
        min_active: seconds that replace the file's value.
        picture: file to draw the picture to.
        state_dir: the state folder of a daemon that has measured.
        gpu: sizes of the GPUs.
        host: size of the host's memory.
        memory: sizes of models.
        start: seconds of a start, for all models or for one, as in the next four options.
        stop: seconds of the end of a process.
        sleep: seconds of falling asleep.
        wake: seconds of a wake.
        serve: seconds of a request.
        queue_wait: seconds that jobs of a cluster wait in the queue.
        node_failures: failures of a node in a year.
        seed: the seed of all random numbers.
    """

    trace: str | None
    log: str | None
    max_wait: int | None
    min_active: int | None
    picture: str | None
    state_dir: str | None
    gpu: Sequence[str]
    host: str | None
    memory: Sequence[str]
    start: Sequence[str]
    stop: Sequence[str]
    sleep: Sequence[str]
    wake: Sequence[str]
    serve: Sequence[str]
    queue_wait: Sequence[str] = ()
    node_failures: float = 0.0
    seed: int = 1


def learned_by(config: Config, options: Played) -> Mapping[str, Learned]:
    """Return what a daemon has learned of each model, or nothing without its state folder.

    Raises:
        CannotRun: the folder has no learned values.
    """
    if not options.state_dir:
        return {}
    file = Path(options.state_dir) / "learned.json"
    if not file.is_file():
        raise CannotRun(f"--state-dir {options.state_dir}: there is no {file.name} in it")
    knowledge = Knowledge(file)
    return {name: knowledge.recall(model) for name, model in config.models.items()}


def space_for(config: Config, options: Played) -> Space | None:
    """Return the available memory. None if neither file nor options mention memory.

    Raises:
        CannotRun: an option is not valid, or the amount of memory is not given.
    """
    router = config.routing.router
    if router.use != "memory" and not (options.gpu or options.host or options.memory):
        return None
    whole = {f"gpu{n}": _gibibytes("gpu", text) for n, text in enumerate(options.gpu)}
    of_file = router.settings.memory.host_memory
    if options.host:
        whole[HOST] = _gibibytes("host", options.host)
    elif of_file is not None:
        whole[HOST] = int(of_file * GIB)
    elif whole:
        whole[HOST] = WITHOUT_END
    else:
        raise CannotRun(
            "the amount of memory is unknown: give --gpu GIB for each GPU, or --host GIB for a "
            "machine without GPUs"
        )
    return Space(whole=whole)


def needs_for(
    config: Config, options: Played, learned: Mapping[str, Learned], space: Space
) -> Mapping[str, Need]:
    """Return what each model needs.

    Raises:
        CannotRun: an option cannot be used.
    """
    all_of_them, own = _given(config, options)
    return {
        name: _need(model, own.get(name, all_of_them), learned.get(name, NOTHING_LEARNED), space)
        for name, model in config.models.items()
    }


def _given(config: Config, options: Played) -> tuple[Size | None, dict[str, Size]]:
    everyones: Size | None = None
    own: dict[str, Size] = {}
    for text in options.memory:
        who, equals, value = text.rpartition("=")
        model = config.find(who)
        size, slash, rest = value.partition("/")
        found = (
            _gibibytes("memory", size, text),
            _gibibytes("memory", rest, text) if slash else None,
        )
        if not equals:
            everyones = found
        elif model is None:
            raise CannotRun(f"--memory {text}: no model is called '{who}'")
        else:
            own[model.id] = found
    return everyones, own


def _gibibytes(option: str, text: str, whole: str = "") -> int:
    form = "GIB, [MODEL=]GIB or [MODEL=]GIB/REST" if option == "memory" else "GIB"
    try:
        value = float(text)
    except ValueError:
        value = inf
    if not 0 <= value < 1e6:
        raise Malformed(f"--{option} {whole or text}: expected {form}, such as 24")
    return int(value * GIB)


def _need(model: Model, given: Size | None, learned: Learned, space: Space) -> Need:
    count, only = _gpus(model, space)
    known = learned.footprint.rested()
    of_file = _guess(model)
    if of_file is not None:
        known = attrs.evolve(known, gpus=of_file.gpus, host=of_file.host, lives=1)
    if given is not None:
        known = _with(known, given, count if space.gpus else 0)
    known = attrs.evolve(known, growth=0, is_short=False)
    return Need(gpus=0 if known.gpus == () else count, only=only, known=known)


def _with(known: Footprint, given: Size, gpus: int) -> Footprint:
    size, rest = given
    if not gpus:
        left = known.host_asleep if rest is None else rest
        return attrs.evolve(known, host=size, host_asleep=left, lives=1)
    left_on_gpus = known.gpus_asleep if rest is None else (rest,) * gpus
    return attrs.evolve(known, gpus=(size,) * gpus, gpus_asleep=left_on_gpus, lives=1)


def _guess(model: Model) -> Footprint | None:
    gpu, host = model.memory.gpu, model.memory.host
    if gpu is None and host is None:
        return None
    gpus = None if gpu is None else tuple(int(one * GIB) for one in (gpu,) if one)
    return Footprint(gpus=gpus, host=None if host is None else int(host * GIB))


def _gpus(model: Model, space: Space) -> tuple[int, tuple[str, ...]]:
    """Return on how many GPUs a model runs, and on which if it names them by their index."""
    said = said_by(model.env, model.cmd.text)
    names = said.split(",") if said else model.gpus if isinstance(model.gpus, tuple) else ()
    if said == "":
        return 0, ()
    only = tuple(f"gpu{name}" for name in names if f"gpu{name}" in space.gpus)
    count = model.gpus if isinstance(model.gpus, int) and not names else len(names)
    return count, only if len(only) == len(names) else ()
