"""What an operator may write: YAML text in, frozen facts out, every problem with its place.

Owns reading, macros, structuring and the rules across keys. Knows nothing of processes or HTTP.
"""

from configschema.addresses import is_reachable
from configschema.commandline import Command
from configschema.fields import fields_of
from configschema.limits import Limits, resolve_limits
from configschema.matrixsets import Sets
from configschema.problems import ConfigError, Problem
from configschema.reading import Loaded, files_in, load, parse
from configschema.recipe import Call, Recipe, Run, Step
from configschema.routing import rules_of, sets_of
from configschema.schema import Config, Model
from configschema.sections import (
    DEFAULT_GROUP,
    Capabilities,
    Filters,
    Group,
    Matrix,
    Peer,
    Profile,
    Selector,
    Timeouts,
    Verify,
)

__all__ = [
    "DEFAULT_GROUP",
    "Call",
    "Capabilities",
    "Command",
    "Config",
    "ConfigError",
    "Filters",
    "Group",
    "Limits",
    "Loaded",
    "Matrix",
    "Model",
    "Peer",
    "Problem",
    "Profile",
    "Recipe",
    "Run",
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
