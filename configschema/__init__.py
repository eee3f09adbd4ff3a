"""What an operator may write: YAML text in, frozen facts out, every problem with its place.

Owns reading, macros, structuring and the rules across keys. Knows nothing of processes or HTTP.
"""

from configschema.commandline import Command
from configschema.limits import Limits, resolve_limits
from configschema.problems import ConfigError, Problem
from configschema.reading import Loaded, load, parse
from configschema.schema import Config, Model

__all__ = [
    "Command",
    "Config",
    "ConfigError",
    "Limits",
    "Loaded",
    "Model",
    "Problem",
    "load",
    "parse",
    "resolve_limits",
]
