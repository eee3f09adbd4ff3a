"""The configuration file: YAML text in, frozen objects out, and every problem with its place.

Owns reading, macros, structuring and the rules across keys. It knows no processes and no HTTP.
"""

from configschema.keys.clients import ApiKey, Cors, Security
from configschema.keys.clusters import Allocation, Cluster, Entrance, Holding, Landing
from configschema.keys.commandline import Command
from configschema.keys.fields import fields_of
from configschema.keys.limits import Limits, resolve_limits
from configschema.keys.recipe import Call, Checkpoint, Recipe, Run, Step
from configschema.keys.schema import Config, Model
from configschema.keys.sections import (
    Capabilities,
    Filters,
    Peer,
    Profile,
    Selector,
    Timeouts,
    Verify,
)
from configschema.keys.sharing import DEFAULT_GROUP, Group, Matrix, MemoryRules
from configschema.reading import Here, Loaded, files_in, load, parse
from configschema.rules.addresses import is_reachable
from configschema.rules.matrixsets import Sets
from configschema.rules.routing import rules_of, sets_of
from configschema.text.problems import ConfigError, Problem

__all__ = [
    "DEFAULT_GROUP",
    "Allocation",
    "ApiKey",
    "Call",
    "Capabilities",
    "Checkpoint",
    "Cluster",
    "Command",
    "Config",
    "ConfigError",
    "Cors",
    "Entrance",
    "Filters",
    "Group",
    "Here",
    "Holding",
    "Landing",
    "Limits",
    "Loaded",
    "Matrix",
    "MemoryRules",
    "Model",
    "Peer",
    "Problem",
    "Profile",
    "Recipe",
    "Run",
    "Security",
    "Selector",
    "Sets",
    "Step",
    "Timeouts",
    "Verify",
    "fields_of",
    "files_in",
    "is_reachable",
    "load",
    "parse",
    "resolve_limits",
    "rules_of",
    "sets_of",
]
