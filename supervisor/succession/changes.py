"""What a new configuration changes, model by model. Pure.

Owns which differences need a new process. The supervisor applies the changes to the models.
"""

from __future__ import annotations

import attrs

from configschema import Config, Model, fields_of, resolve_limits


@attrs.frozen(kw_only=True)
class Changes:
    """The models of two configurations, by what happens to them; ids, sorted.

    Attributes:
        kept: models without any change.
        adjusted: models with a change that a running process need not know, such as a timeout.
        replaced: models that need another process.
        removed: models that the new configuration lacks.
        added: models that the old configuration lacks.
        settings: keys of the whole file whose value has changed.
    """

    kept: tuple[str, ...] = ()
    adjusted: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = {
            "added": self.added,
            "replaced": self.replaced,
            "removed": self.removed,
            "adjusted": self.adjusted,
            "changed": self.settings,
        }
        said = [f"{what} {', '.join(names)}" for what, names in parts.items() if names]
        count = len(self.kept)
        return "; ".join([*said, f"{count} {'model' if count == 1 else 'models'} unchanged"])


def changes(old: Config, new: Config) -> Changes:
    """Compare two configurations."""
    both = sorted(old.models.keys() & new.models.keys())
    replaced = [name for name in both if _process(old.models[name]) != _process(new.models[name])]
    others = [name for name in both if name not in replaced]
    kept = [name for name in others if _effective(old, name) == _effective(new, name)]
    return Changes(
        kept=tuple(kept),
        adjusted=tuple(name for name in others if name not in kept),
        replaced=tuple(replaced),
        removed=tuple(sorted(old.models.keys() - new.models.keys())),
        added=tuple(sorted(new.models.keys() - old.models.keys())),
        settings=tuple(
            key
            for key, field in fields_of(Config).items()
            if key != "models" and getattr(old, field.name) != getattr(new, field.name)
        ),
    )


def _effective(config: Config, name: str) -> object:
    """Return everything that is in effect for a model, wherever the file says it."""
    return config.models[name], resolve_limits(config, config.models[name])


def _process(model: Model) -> object:
    """Return what a running process was started with, and how it is put to sleep and woken."""
    where = model.port, model.proxy, model.check_endpoint, model.detached
    held = model.holding and model.holding.asked
    return model.cmd, model.env, where, model.recipe.way, held
