"""The configuration as frozen classes: the top of the file and its models, a field for each key.

Owns names, types and defaults. A field ``some_name`` is the key ``someName``. `sections` has the
parts below them. `rules` has the checks across keys.
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
    """One entry of ``models``. Keys that llama-swap has keep its meanings and defaults."""

    id: str = inner("")
    port: int | None = inner(None)
    """The value of ``${PORT}``; None if ``cmd`` does not use it."""
    recipe: Recipe = inner(NO_RECIPE)
    """How the model sleeps and wakes, whichever keys say so."""
    shown: Mapping[str, str] = inner(attrs.Factory(dict))
    """``cmd``, ``proxy`` and others as anybody may see them: without passwords, and without values
    of the environment."""
    on_port: Callable[[int], Model] | None = inner(None, eq=False)
    """Returns the model with another port; None if llamadoze does not choose its port."""
    holding: Holding | None = inner(None, eq=False)
    """The model's allocation in a cluster; None for a model of this machine."""
    on_landing: Callable[[Landing], Model] | None = inner(None, eq=False)
    """In a cluster, returns the model with the place where its server runs; None elsewhere."""
    landing: Landing | None = inner(None, eq=False)
    """That place."""
    written: Model | None = inner(None, eq=False)
    """The model as the file has it, if this one has landed."""
    cmd: Command = key("the command that starts the model server", NO_COMMAND)
    cmd_stop: Command = key("the command that stops it, in place of SIGTERM", NO_COMMAND)
    stop_timeout: Timeout | None = key("seconds cmdStop may run; default: the global value", None)
    detached: bool | None = key(
        "whether the model server outlives cmd, which only starts it, or runs without cmd; "
        "default: found from cmd",
        None,
    )
    in_: Where | None = key(
        "the cluster allocation that the model runs in; default: this machine",
        None,
        name="in",
    )
    watch: bool | None = key(
        "whether llamadoze restarts the model after a crash without waiting for a request; "
        "default: for persistent and preloaded models only",
        None,
    )
    keep: bool = key("whether the model never makes room for another one", False)
    memory: Memory = key("the memory it needs, until that is measured", Memory())
    gpus: Gpus = key("the number of its GPUs, or a list of them by index or UUID", Gpus(1))
    cmd_sleep: Command = key("command that puts the model to sleep; needs cmdWake", NO_COMMAND)
    cmd_wake: Command = key("command that wakes the model; needs cmdSleep", NO_COMMAND)
    cmd_sleep_timeout: Timeout | None = key("seconds cmdSleep may run; else the global value", None)
    cmd_wake_timeout: Timeout | None = key("seconds cmdWake may run; else the global value", None)
    sleep: PresetName | None = key("preset for a known kind of model server", None)
    slots: Literal["keep"] | None = key(
        "keep: save llama.cpp's prompt caches before a sleep or a stop, and restore them", None
    )
    sleep_mode: Literal["enable", "disable"] = key(
        "whether sleepEndpoints and wakeEndpoints take effect", "disable"
    )
    sleep_endpoints: tuple[Endpoint, ...] = key("requests that put the model to sleep", ())
    wake_endpoints: tuple[Endpoint, ...] = key("requests that wake the model", ())
    verify: Verify = key("what proves a sleep and a wake", Verify())
    max_sleep_failures: Count | None = key(
        "sleeps and wakes that may fail in a row; default: the global value", None
    )
    control_headers: Mapping[str, Secret] = keys(
        "headers of llamadoze's own requests to the model server", repr=False
    )
    proxy: str = key("address of the model server", DEFAULT_PROXY)
    check_endpoint: str = key("path that answers 200 if the model is ready, or none", "/health")
    ready_timeout: Timeout | None = key(
        "seconds to become ready; default: healthCheckTimeout, else the preset's", None
    )
    sleep_ttl: Seconds | None = key("idle seconds until the model sleeps; 0 is never", None)
    ttl: Ttl = key(
        "idle seconds until the model stops, or sleeps if it has cmdSleep and no sleepTtl; "
        "0 is never, -1 is globalTTL",
        GLOBAL_TTL,
    )
    drain_timeout: Seconds | None = key(
        "seconds its requests may delay an operator's sleep or change, or other models' turn; "
        "default: the global value",
        None,
    )
    unload_timeout: Seconds = key(
        "seconds from the stop to SIGKILL; 0 is the global value", Seconds(0)
    )
    aliases: tuple[str, ...] = key("other names of the model", ())
    env: tuple[str, ...] = key("NAME=value, added to the daemon's environment", (), repr=False)
    name: str = key("shown in the list of models", "")
    description: str = key("shown in the list of models", "")
    unlisted: bool = key("whether it is left out of the list of models", False)
    use_model_name: str = key("the model's name in requests to the model server", "")
    host_header: str = key("Host header for the model server; default: the client's", "")
    concurrency_limit: Number = key("requests, in flight and waiting; 0 is 10", Number(0))
    filters: Filters = key("changes to the request body", Filters())
    timeouts: Timeouts = key("time limits of the connection", Timeouts())
    send_loading_state: bool | None = key("default: the global value", None)
    capabilities: Capabilities = key("shown in the list of models", Capabilities())
    compat: Compat = key("workarounds for some model servers", Compat())
    metadata: Mapping[str, Any] = keys("shown in the list of models")
    macros: Mapping[str, MacroValue] = keys(
        "macros of this model, which win over the global ones", repr=False
    )
    health_check_timeout: Any = key("ignored, as in llama-swap: use readyTimeout", None)

    @property
    def can_sleep(self) -> bool:
        """Whether the model sleeps, instead of stopping, to make room."""
        return bool(self.recipe)

    @cached_property
    def is_elsewhere(self) -> bool:
        """Whether the model server outlives ``cmd``, or runs without one."""
        return self.in_ is None and lives_elsewhere(self.cmd.argv, self.proxy, self.detached)

    @property
    def allocation(self) -> str:
        """The name of the allocation that the model runs in; empty for this machine."""
        return self.holding.name if self.holding else ""

    @property
    def as_written(self) -> Model:
        """The model as the file has it, wherever its server runs."""
        return self.written or self

    @property
    def entrance(self) -> Entrance | None:
        """The way to its server, if that runs on a node of a cluster."""
        return self.landing.entrance if self.landing else None

    @property
    def other_names(self) -> tuple[str, ...]:
        """Its aliases, including the names of ``setParamsByID``."""
        by_id = (name for name in self.filters.set_params_by_id if name != self.id)
        return tuple(dict.fromkeys((*self.aliases, *by_id)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Config(Section):
    """The whole file."""

    health_check_timeout: AnySeconds | None = key(
        "seconds to become ready, at least 15; default: 120, or more for some presets", None
    )
    cmd_sleep_timeout: Timeout | None = key("seconds cmdSleep may run; default: 60", None)
    cmd_wake_timeout: Timeout | None = key("seconds cmdWake may run; default: 60", None)
    sleep_request_timeout: Timeout | None = key(
        "seconds each of sleepEndpoints may take; default: cmdSleepTimeout", None
    )
    wake_request_timeout: Timeout | None = key(
        "seconds each of wakeEndpoints may take; default: cmdWakeTimeout", None
    )
    max_sleep_failures: Count = key(
        "sleeps and wakes of a model that may fail in a row before llamadoze only stops it and "
        "puts it to sleep no more; 0 is no limit",
        Count(3),
    )
    max_backoff: Seconds = key(
        "longest wait in seconds before the next start of a model that keeps failing; 0 starts it "
        "at once",
        Seconds(60),
    )
    drain_timeout: Seconds = key(
        "seconds a model's requests may delay an operator's sleep or change, or other models' "
        "turn; 0 is no limit",
        Seconds(3600),
    )
    unload_timeout: Seconds = key("seconds from a stop to SIGKILL; 0 is 10", Seconds(0))
    stop_timeout: Timeout | None = key(
        "seconds cmdStop may run; default: the longer of unloadTimeout and healthCheckTimeout",
        None,
    )
    ignore_leftovers: bool = key(
        "whether models start although a leftover process may still use memory", False
    )
    max_wait: Seconds = key(
        "seconds a request waits for another model in use before that model accepts no new "
        "requests; 0 is no limit",
        Seconds(10),
    )
    min_active: Seconds = key(
        "seconds a model stays after its start or wake, even if others wait", Seconds(0)
    )
    max_queue: Count = key(
        "requests that may wait for all models together; 0 is no limit", Count(0)
    )
    max_body: Count = key(
        "MiB of a request's JSON, which stays in memory; 0 is no limit", Count(256)
    )
    max_bodies: Count = key("MiB of JSON of all requests together; 0 is no limit", Count(1024))
    max_upload: Count = key(
        "MiB of any other request body, which is passed on as it arrives; 0 is no limit",
        Count(0),
    )
    global_concurrency_limit: Number = key(
        "requests in flight to all models and peers together; 0 is no limit", Number(0)
    )
    client_timeout: Seconds = key(
        "seconds after which an answer ends if its client reads nothing; 0 is no limit",
        Seconds(600),
    )
    max_sleepers: Count = key(
        "models that may sleep at once; the least valuable stop; 0 is no limit", Count(0)
    )
    max_sleep_memory: Count = key(
        "GiB of host memory for all sleeping models together; 0 is no limit", Count(0)
    )
    yield_: bool = key(
        "whether idle models sleep while other programs need their GPU memory", False
    )
    yield_to: tuple[str, ...] = key("programs that idle models sleep for while one runs", ())
    global_ttl: Seconds = key("ttl of models without one; 0 is never", Seconds(0), name="globalTTL")
    adopt: bool = key(
        "whether model processes outlive the daemon, so that the next one takes them over", False
    )
    start_port: Port = key("the first port for ${PORT}", DEFAULT_START_PORT)
    log_level: str = key("debug, info, warn or error; any other word is info", "info")
    log_time_format: str = key("not in effect: the log has its own time format", "")
    log_to_stdout: LogOutputs = key(
        "logs to show: both, none, or some of proxy, upstream and http, with commas", "proxy"
    )
    log_requests: Any = key("ignored, as in llama-swap", None)
    metrics_max_in_memory: Number = key("requests that the activity log keeps", Number(1000))
    capture_buffer: Number = key(
        "MB of requests and answers that are kept for the user interface", Number(5)
    )
    send_loading_state: bool = key("whether streams report that their model is loading", False)
    include_aliases_in_list: bool = key("whether aliases are listed as models", False)
    api_keys: tuple[ApiKey, ...] = key(
        "API keys of clients, as texts or with a name; without any, no key is needed",
        (),
        repr=False,
    )
    security: Security = key("who may use the daemon from a browser", Security())
    macros: Mapping[str, MacroValue] = keys("texts and numbers to use as ${NAME}", repr=False)
    models: Mapping[str, Model] = keys("the models by id")
    clusters: Mapping[str, Cluster] = keys("clusters that models may run in")
    allocations: Mapping[str, Allocation] = keys("allocations of clusters that models share")
    groups: Mapping[str, Group] = keys("which models run together, as groups")
    matrix: Matrix | None = key(
        "which models run together, as expressions in place of groups", None
    )
    routing: Routing = key("groups or matrix and the queue, in llama-swap's newer form", Routing())
    selectors: Mapping[str, Selector] = keys("names that each mean one of several models")
    profiles: Mapping[str, Profile] = keys("sets of names to activate together")
    peers: Mapping[str, Peer] = keys("other servers whose models llamadoze serves, too")
    hooks: Hooks = key("actions at the start", Hooks())
    upstream: UpstreamPaths = key("what /upstream/MODEL/... does", UpstreamPaths())
    store: Store | None = key("where the activity log is kept; default: in memory", None)
    ui: Ui = key("the user interface", Ui())
    performance: Performance = key("samples of CPU, memory and GPU use", Performance())
    tailcat: Any = key("ignored: llamadoze does not support Tailcat", None)

    hide: Callable[[str], str] = inner(str, eq=False)

    def find(self, name: str) -> Model | None:
        """Return the model with this id or, if there is none, with this alias."""
        return self.by_name.get(name)

    @cached_property
    def by_name(self) -> Mapping[str, Model]:
        """All models by their ids and aliases. An id comes before an alias."""
        aliases = ((name, one) for one in self.models.values() for name in one.other_names)
        return dict(aliases) | dict(self.models)
