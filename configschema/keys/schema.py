"""The configuration as frozen facts: the top of the file and its models, one field per key.

Owns names, types and defaults. A field ``some_name`` is the key ``someName``. What stands below
them is in `sections`; rules across keys are in the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import attrs

from configschema.keys.clients import ApiKey, Security
from configschema.keys.clusters import Allocation, Cluster, Entrance, Holding, Landing, Where
from configschema.keys.commandline import NO_COMMAND, Command
from configschema.keys.elsewhere import lives_elsewhere
from configschema.keys.fields import (
    AnySeconds,
    Count,
    Gpus,
    LogOutputs,
    MacroValue,
    Number,
    Port,
    Seconds,
    Secret,
    Section,
    Timeout,
    Ttl,
    inner,
    key,
    keys,
)
from configschema.keys.presets import PresetName
from configschema.keys.recipe import NO_RECIPE, Recipe
from configschema.keys.sections import (
    Capabilities,
    Compat,
    Endpoint,
    Filters,
    Hooks,
    Peer,
    Performance,
    Profile,
    Selector,
    Store,
    Timeouts,
    Ui,
    UpstreamPaths,
    Verify,
)
from configschema.keys.sharing import Group, Matrix, Memory, Routing

DEFAULT_PROXY, ON_NODE = "http://localhost:${PORT}", "http://${HOST}:${PORT}"
DEFAULT_START_PORT = Port(5800)
GLOBAL_TTL = Ttl(-1)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Model(Section):
    """One entry of ``models``. Defaults and meanings are llama-swap's where it has the key."""

    id: str = inner("")
    port: int | None = inner(None)
    """The port that stands for ``${PORT}``; None if ``cmd`` does not use one."""
    recipe: Recipe = inner(NO_RECIPE)
    """How it sleeps and wakes, whichever keys say so."""
    shown: Mapping[str, str] = inner(attrs.Factory(dict))
    """``cmd`` and ``proxy`` as anybody may read them: without passwords, and without values that
    only the environment has."""
    on_port: Callable[[int], Model] | None = inner(None, eq=False)
    """Returns the same model with another port; None if its port is not ours to choose."""
    holding: Holding | None = inner(None, eq=False)
    """What is held of a cluster for it; None for a model of this machine."""
    on_landing: Callable[[Landing], Model] | None = inner(None, eq=False)
    """Returns the same model where its server has come to run, in a cluster; None elsewhere."""
    landing: Landing | None = inner(None, eq=False)
    """Where that is."""
    written: Model | None = inner(None, eq=False)
    """The model as the file has it, where this one has landed."""
    cmd: Command = key("starts the model server", NO_COMMAND)
    cmd_stop: Command = key("run instead of sending SIGTERM", NO_COMMAND)
    stop_timeout: Timeout | None = key("seconds cmdStop may run; else the global value", None)
    detached: bool | None = key(
        "whether the model server lives without cmd: cmd only starts it, or nothing does; else "
        "found from cmd",
        None,
    )
    in_: Where | None = key(
        "the allocation of a cluster that the model runs in; without it, this machine",
        None,
        name="in",
    )
    watch: bool | None = key(
        "whether the model is started again after a crash, before anybody asks; else for "
        "persistent and preloaded models",
        None,
    )
    keep: bool = key("whether the model is never asked to leave for another", False)
    memory: Memory = key("what it needs, until that is measured", Memory())
    gpus: Gpus = key("how many GPUs it runs on, or a list of which, by index or UUID", Gpus(1))
    cmd_sleep: Command = key("puts the model to sleep; needs cmdWake", NO_COMMAND)
    cmd_wake: Command = key("wakes the model; needs cmdSleep", NO_COMMAND)
    cmd_sleep_timeout: Timeout | None = key("seconds cmdSleep may run; else the global value", None)
    cmd_wake_timeout: Timeout | None = key("seconds cmdWake may run; else the global value", None)
    sleep: PresetName | None = key("how a known kind of model server sleeps", None)
    slots: Literal["keep"] | None = key(
        "whether llama.cpp's prompt caches are saved before a sleep and a stop, and restored", None
    )
    sleep_mode: Literal["enable", "disable"] = key(
        "whether sleepEndpoints and wakeEndpoints are used", "disable"
    )
    sleep_endpoints: tuple[Endpoint, ...] = key("requests that put the model to sleep", ())
    wake_endpoints: tuple[Endpoint, ...] = key("requests that wake the model", ())
    verify: Verify = key("what a sleep and a wake must prove", Verify())
    max_sleep_failures: Count | None = key(
        "sleeps and wakes that may fail in a row; else the global value", None
    )
    control_headers: Mapping[str, Secret] = keys(
        "headers of the daemon's own requests to the model server", repr=False
    )
    proxy: str = key("where the model server listens", DEFAULT_PROXY)
    check_endpoint: str = key("path that answers 200 when the model is ready; or none", "/health")
    ready_timeout: Timeout | None = key(
        "seconds until the model is ready; else healthCheckTimeout, else the preset's", None
    )
    sleep_ttl: Seconds | None = key("idle seconds until it sleeps; 0 is never", None)
    ttl: Ttl = key(
        "idle seconds until it stops, or sleeps if it has cmdSleep and no sleepTtl; "
        "0 is never, -1 is globalTTL",
        GLOBAL_TTL,
    )
    drain_timeout: Seconds | None = key(
        "seconds its requests may delay a sleep or a change that was asked for, or others' turn; "
        "else the global value",
        None,
    )
    unload_timeout: Seconds = key("seconds until SIGKILL; 0 is the global value", Seconds(0))
    aliases: tuple[str, ...] = key("other names of the model", ())
    env: tuple[str, ...] = key("NAME=value, added to the daemon's environment", (), repr=False)
    name: str = key("shown in the list of models", "")
    description: str = key("shown in the list of models", "")
    unlisted: bool = key("whether it is left out of the list of models", False)
    use_model_name: str = key("what the model server reads as model", "")
    host_header: str = key("the Host that the model server reads; else the client's", "")
    concurrency_limit: Number = key("requests, running and waiting; 0 is 10", Number(0))
    filters: Filters = key("changes to the request body", Filters())
    timeouts: Timeouts = key("time limits of the connection", Timeouts())
    send_loading_state: bool | None = key("else the global value", None)
    capabilities: Capabilities = key("for the list of models", Capabilities())
    compat: Compat = key("ways around habits of model servers", Compat())
    metadata: Mapping[str, Any] = keys("shown in the list of models")
    macros: Mapping[str, MacroValue] = keys(
        "macros of this model; they win over the global ones", repr=False
    )
    health_check_timeout: Any = key("ignored, as in llama-swap: use readyTimeout", None)

    @property
    def can_sleep(self) -> bool:
        """Whether the model is put to sleep, rather than stopped, to make room."""
        return bool(self.recipe)

    @cached_property
    def is_elsewhere(self) -> bool:
        """Whether the model server lives without ``cmd``: it only starts it, or nothing does."""
        return self.in_ is None and lives_elsewhere(self.cmd.argv, self.proxy, self.detached)

    @property
    def allocation(self) -> str:
        """The name of the allocation that it runs in; nothing for this machine."""
        return self.holding.name if self.holding else ""

    @property
    def as_written(self) -> Model:
        """The model as the file has it, wherever its server has come to run."""
        return self.written or self

    @property
    def entrance(self) -> Entrance | None:
        """The way to its server, where that is on a node of a cluster."""
        return self.landing.entrance if self.landing else None

    @property
    def other_names(self) -> tuple[str, ...]:
        """Its aliases, and the names that ``setParamsByID`` makes aliases."""
        by_id = (name for name in self.filters.set_params_by_id if name != self.id)
        return tuple(dict.fromkeys((*self.aliases, *by_id)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Config(Section):
    """The whole file."""

    health_check_timeout: AnySeconds | None = key(
        "seconds until a model is ready; below 15 is 15; without it 120, or more for a preset", None
    )
    cmd_sleep_timeout: Timeout | None = key("seconds cmdSleep may run; without it 60", None)
    cmd_wake_timeout: Timeout | None = key("seconds cmdWake may run; without it 60", None)
    sleep_request_timeout: Timeout | None = key(
        "seconds each of sleepEndpoints may take; without it cmdSleepTimeout", None
    )
    wake_request_timeout: Timeout | None = key(
        "seconds each of wakeEndpoints may take; without it cmdWakeTimeout", None
    )
    max_sleep_failures: Count = key(
        "sleeps and wakes of a model that may fail in a row before it is stopped instead, and "
        "sleeps no more; 0 is no limit",
        Count(3),
    )
    max_backoff: Seconds = key(
        "seconds until the next start of a model that fails again and again, at most; 0 starts it "
        "at once",
        Seconds(60),
    )
    drain_timeout: Seconds = key(
        "seconds a model's requests may delay a sleep or a change that was asked for, or others' "
        "turn; 0 is no limit",
        Seconds(3600),
    )
    unload_timeout: Seconds = key("seconds until SIGKILL; 0 is 10", Seconds(0))
    stop_timeout: Timeout | None = key(
        "seconds cmdStop may run; without it the longer of unloadTimeout and healthCheckTimeout",
        None,
    )
    ignore_leftovers: bool = key(
        "whether models start although a process that could not be ended may still hold memory",
        False,
    )
    max_wait: Seconds = key(
        "seconds a request waits behind another model in use until that one is closed for "
        "newcomers; 0 is without end",
        Seconds(10),
    )
    min_active: Seconds = key(
        "seconds a model that came up is kept, even if others wait", Seconds(0)
    )
    max_queue: Count = key(
        "requests that may wait, for all models together; 0 is no limit", Count(0)
    )
    max_body: Count = key(
        "MiB of a request's JSON, which is held in memory; 0 is no limit", Count(256)
    )
    max_bodies: Count = key(
        "MiB of JSON that all requests together may hold; 0 is no limit", Count(1024)
    )
    max_upload: Count = key(
        "MiB of any other request's body, which is passed on as it arrives; 0 is no limit",
        Count(0),
    )
    global_concurrency_limit: Number = key(
        "requests in service at once, of all models and peers together; 0 is no limit", Number(0)
    )
    client_timeout: Seconds = key(
        "seconds a client may take nothing of its answer until it is cut; 0 is no limit",
        Seconds(600),
    )
    max_sleepers: Count = key(
        "models that may sleep at once, the least valuable are stopped; 0 is no limit", Count(0)
    )
    max_sleep_memory: Count = key(
        "GiB of host memory that sleeping models may hold together; 0 is no limit", Count(0)
    )
    yield_: bool = key(
        "whether idle models sleep while others take the GPU memory that they have", False
    )
    yield_to: tuple[str, ...] = key("programs for which idle models sleep while one runs", ())
    global_ttl: Seconds = key(
        "the ttl of models without one; 0 is never", Seconds(0), name="globalTTL"
    )
    adopt: bool = key(
        "whether model processes outlive the daemon, for the next one to take over", False
    )
    start_port: Port = key("the first port for ${PORT}", DEFAULT_START_PORT)
    log_level: str = key("debug, info, warn or error; anything else is info", "info")
    log_time_format: str = key("how times are written in the log", "")
    log_to_stdout: LogOutputs = key(
        "whose log is shown: both, none, or some of proxy, upstream and http, with commas", "proxy"
    )
    log_requests: Any = key("ignored, as in llama-swap", None)
    metrics_max_in_memory: Number = key("requests kept in the activity log", Number(1000))
    capture_buffer: Number = key(
        "MB of requests and answers kept for the user interface", Number(5)
    )
    send_loading_state: bool = key("whether a stream says that its model is loading", False)
    include_aliases_in_list: bool = key("whether aliases are listed as models", False)
    api_keys: tuple[ApiKey, ...] = key(
        "keys that clients must show, as texts or with a name; none: anybody", (), repr=False
    )
    security: Security = key("who may use the daemon by way of a browser", Security())
    macros: Mapping[str, MacroValue] = keys("texts and numbers to use as ${NAME}", repr=False)
    models: Mapping[str, Model] = keys("the models by id")
    clusters: Mapping[str, Cluster] = keys("clusters that models may run in")
    allocations: Mapping[str, Allocation] = keys("what is held of them, for models that share it")
    groups: Mapping[str, Group] = keys("which models run together")
    matrix: Matrix | None = key(
        "which models run together, as expressions; instead of groups", None
    )
    routing: Routing = key("groups or matrix and the queue, in llama-swap's newer form", Routing())
    selectors: Mapping[str, Selector] = keys("names that stand for one of several models")
    profiles: Mapping[str, Profile] = keys("sets of names that can be switched on together")
    peers: Mapping[str, Peer] = keys("other servers whose models are served, too")
    hooks: Hooks = key("what is done at the start", Hooks())
    upstream: UpstreamPaths = key("what /upstream/MODEL/... does", UpstreamPaths())
    store: Store | None = key("where the activity log is kept; else in memory", None)
    ui: Ui = key("the user interface", Ui())
    performance: Performance = key("samples of CPU, memory and GPU", Performance())
    tailcat: Any = key("ignored: Tailcat is not spoken here", None)

    hide: Callable[[str], str] = inner(str, eq=False)

    def find(self, name: str) -> Model | None:
        """Return the model with this id or, failing that, this alias."""
        return self.models.get(name) or self._by_other_names.get(name)

    @cached_property
    def _by_other_names(self) -> Mapping[str, Model]:
        return {other: model for model in self.models.values() for other in model.other_names}
