"""The views of the configuration: the files with their problems, and each model's settings.

Owns these routes. The reloader reads the files, and decides what a reload does.
"""

from __future__ import annotations

from typing import Any

import attrs
from quart import Blueprint

from configschema.rules.showing import as_yaml, settings_of
from proxy.lifecycle.reloading import Reloader
from supervisor import Supervisor


def settings_views(reloader: Reloader, supervisor: Supervisor) -> Blueprint:
    """Return the routes of the configuration."""
    views = Blueprint("settings", __name__)

    @views.get("/api/config")
    async def files() -> dict[str, Any]:
        """Tell what the files contain now, and what a reload would change."""
        seen = await reloader.preview()
        return {
            "good": seen.changes is not None,
            "files": [{"path": path, "text": text} for path, text in seen.texts.items()],
            "problems": [attrs.asdict(one) for one in seen.problems],
            "warnings": [attrs.asdict(one) for one in seen.warnings],
            "changes": attrs.asdict(seen.changes) if seen.changes else None,
            "differences": [attrs.asdict(one) for one in seen.differences],
            "summary": str(seen.changes) if seen.changes else "",
        }

    @views.get("/api/config/models/<path:name>")
    async def one(name: str) -> dict[str, Any]:
        """Tell which settings are in effect for a model, without secrets."""
        model = supervisor.find(name)
        settings = settings_of(supervisor.config, model.id)
        return {"model": model.id, "settings": settings, "yaml": as_yaml({model.id: settings})}

    return views
