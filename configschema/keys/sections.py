"""The sections below the file's top and its models: filters, peers, hooks and so on.

Owns names, types and defaults, which are llama-swap's. The checks decide what must fit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from configschema.keys.commandline import NO_COMMAND, Command
from configschema.keys.fields import (
    AnySeconds,
    Count,
    Duration,
    Expression,
    Pattern,
    Percent,
    Positive,
    Seconds,
    Secret,
    Section,
    Timeout,
    key,
    keys,
)

MODALITIES = ("text", "audio", "image", "video")
Params = Mapping[str, Any]
IGNORED_PATHS = (r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$",)
SESSION_HEADERS = ("X-Session-ID", "X-Litellm-Session-Id")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Timeouts(Section):
    """Time limits of the connection to a model server or a peer; 0 is no limit."""

    connect: AnySeconds = key("seconds to connect", AnySeconds(30))
    keepalive: AnySeconds = key("seconds between TCP keep-alive probes", AnySeconds(30))
    response_header: AnySeconds = key("seconds to first byte of the answer", AnySeconds(0))
    tls_handshake: AnySeconds = key("seconds for the TLS handshake", AnySeconds(10))
    expect_continue: AnySeconds = key("seconds to wait for 100-continue", AnySeconds(1))
    idle_conn: AnySeconds = key("seconds an unused connection is kept", AnySeconds(90))
    silence: AnySeconds = key(
        "seconds the network to another machine's model server may be silent; 0 is no limit",
        AnySeconds(60),
    )
    busy: AnySeconds = key(
        "seconds without a byte from the model server, after which llamadoze ends the request and "
        "checks the model; 0 is no limit",
        AnySeconds(0),
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Filters(Section):
    """Changes to a request's JSON body; ``model`` is never changed."""

    strip_params: str = key("parameters to remove, with commas between; dotted paths work", "")
    legacy_strip_params: str = key("the old spelling of stripParams", "", name="strip_params")
    set_params: Params = keys("parameters to set, by name or dotted path", repr=False)
    set_params_by_id: Mapping[str, Params] = keys(
        "parameters to set if a request names the model so; each name is an alias of the model",
        name="setParamsByID",
        repr=False,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Capabilities(Section):
    """What a model can do, for the list of models."""

    input: tuple[str, ...] = key("kinds of input", (), name="in")
    output: tuple[str, ...] = key("kinds of output", (), name="out")
    tools: bool = key("whether it calls tools", False)
    reranker: bool = key("whether it ranks documents", False)
    context: Count = key("tokens of context; 0 is unknown", Count(0))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Compat(Section):
    """Ways around the habits of some model servers."""

    ignore_websockets: bool = key("websockets neither start a model nor keep it busy", False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Endpoint(Section):
    """A step that puts a model to sleep or wakes it: a request (llmsnap's form) or a command."""

    endpoint: str = key("path below the model's proxy address, or a whole address", "")
    method: Literal["POST", "GET", "PUT", "PATCH"] = key("the request's method", "POST")
    query: Mapping[str, str] = keys("parameters added to the address")
    headers: Mapping[str, Secret] = keys("headers of the request", repr=False)
    body: str = key("the request's body, sent as JSON", "", repr=False)
    expect: tuple[Positive, ...] = key("statuses that are success; without any, 2xx", ())
    holds: Expression = key("JMESPath; what must be true of the JSON answer", Expression(""))
    timeout: Seconds = key("seconds it may take; 0 is the global request timeout", Seconds(0))
    repeat: bool = key("whether it is repeated until it succeeds, within its timeout", False)
    optional: bool = key("whether the next step runs even if this one fails", False)
    cmd: Command = key("a command in place of a request", NO_COMMAND)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Check(Section):
    """A question, repeated until its answer proves that a model sleeps or is awake."""

    endpoint: str = key("path below the model's proxy address, or a whole address", "")
    method: Literal["GET", "POST"] = key("the request's method", "GET")
    headers: Mapping[str, Secret] = keys("headers of the request", repr=False)
    body: str = key("the request's body, sent as JSON", "", repr=False)
    expect: tuple[Positive, ...] = key("statuses that are success; without any, 2xx", ())
    holds: Expression = key("JMESPath; what must be true of the JSON answer", Expression(""))
    timeout: Seconds = key("seconds until it must succeed; 0 is verify.timeout", Seconds(0))
    cmd: Command = key("a command that exits with 0, in place of a request", NO_COMMAND)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Verify(Section):
    """What proves a sleep and a wake."""

    asleep: tuple[Check, ...] = key("questions after a sleep; default: the preset's", ())
    awake: tuple[Check, ...] = key("questions after a wake; default: the preset's", ())
    timeout: Timeout = key("seconds until each question and the memory must be right", Timeout(10))
    gpu_memory: bool = key("whether a sleep must free GPU memory, if it can be measured", True)
    host_memory: bool | None = key(
        "whether a sleep must free host memory; default: the preset's", None
    )
    freed: Percent = key("least percentage of memory that a sleep must free", Percent(50))
    max_residue: Count = key(
        "MiB of memory that a sleeping model may keep; 0 is no limit", Count(0)
    )
    max_growth: Count = key(
        "MiB by which the memory of the sleeping model may grow over all its sleeps before "
        "llamadoze replaces the process; 0 is no limit",
        Count(1024),
    )
    canary: bool | None = key("whether a wake must produce a token; default: the preset's", None)
    canary_timeout: Timeout = key("seconds until that token must arrive", Timeout(60))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SelectorSettings(Section):
    """The settings of a selector."""

    spillover: Positive = key(
        "requests that a target gets before the next one is used", Positive(1)
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Selector(Section):
    """A name that stands for one of several models, chosen for each request."""

    strategy: Literal["warm", "pin", "spillover"] | None = key(
        "pin: the first target; warm: the first that runs; spillover: the least busy", None
    )
    targets: tuple[str, ...] = key("models, aliases or peers' models, in order", ())
    settings: SelectorSettings = key("settings of spillover", SelectorSettings())
    name: str = key("shown in the list of models", "")
    description: str = key("shown in the list of models", "")
    unlisted: bool = key("whether it is left out of the list of models", False)
    metadata: Params = keys("shown in the list of models")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Profile(Section):
    """Names that mean other models while the profile is active."""

    description: str = key("what it is for", "")
    pins: Mapping[str, str | None] = keys("model for each name; a name without a value is disabled")


PEER_TIMEOUTS = Timeouts(response_header=AnySeconds(60))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Peer(Section):
    """Another server with an OpenAI-style API, whose models llamadoze serves as well."""

    proxy: str = key("its address; required", "")
    models: tuple[str, ...] = key("its models; at least one", ())
    api_key: Secret = key("sent to it as Bearer and x-api-key", Secret(""), repr=False)
    filters: Filters = key("changes to the request body", Filters())
    timeouts: Timeouts = key("as for a model, but responseHeader is 60 by default", PEER_TIMEOUTS)
    tailcat_key: Any = key("ignored: llamadoze does not support Tailcat", None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OnStartup(Section):
    """What is done at the start."""

    preload: tuple[str, ...] = key("models to load, one after another", ())
    profile: str = key("the profile that is active after the start and after each reload", "")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Hooks(Section):
    """What is done when something happens."""

    on_startup: OnStartup = key("at the start", OnStartup(), name="on_startup")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Store(Section):
    """Where the activity log is kept."""

    path: str = key("SQLite file of requests and decisions; required", "")
    max_mb: Count = key(
        "size limit in MB, beyond which the oldest entries go; 0 is no limit",
        Count(512),
        name="maxMB",
    )
    max_days: Count = key("days for which entries are kept; 0 is no limit", Count(30))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Activity(Section):
    """How the activity page groups requests."""

    session_id: tuple[str, ...] = key(
        "request headers that name a session, by precedence", SESSION_HEADERS, name="session_id"
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ui(Section):
    """The user interface."""

    activity: Activity = key("the activity page", Activity())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Performance(Section):
    """Samples of CPU, memory and GPU use."""

    disabled: bool = key("whether sampling is off", False)
    every: Duration = key("time between samples, at least 5s", Duration("5s"))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UpstreamPaths(Section):
    """What ``/upstream/MODEL/...`` does."""

    ignore_paths: tuple[Pattern, ...] = key(
        "paths that do not start a stopped model", tuple(map(Pattern, IGNORED_PATHS))
    )
    allow_control: bool = key(
        "whether paths that control a model server, such as /sleep, are passed on", False
    )
