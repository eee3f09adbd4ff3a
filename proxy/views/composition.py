"""The Quart-Trio application: all views, and the answers to errors in them.

Owns the composition of the views. Loading this module takes nearly half as long as the rest of a
start. So `lateviews` loads it with the first request for a view.
"""

from __future__ import annotations

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from proxy.http.errors import EXPECTED, Problem, problem_of
from proxy.naming.routes import methods_of
from proxy.views.control import daemon_views
from proxy.views.leases import lease_views
from proxy.views.logs import log_views
from proxy.views.models import model_views
from proxy.views.pagefiles import page_views
from proxy.views.past import past_views
from proxy.views.settings import settings_views
from proxy.views.status import status_views
from proxy.views.subjects import Subjects

SLOWEST_BODY = 60  # seconds for a view's request body to arrive
LONGEST_BODY = 64 * 1024  # bytes; requests to views are short


def quart_application(subjects: Subjects) -> QuartTrio:
    """Return the application with all views."""
    application = QuartTrio("llamadoze", static_folder=None)
    # By default, Quart cuts each response after 60 s, also a stream or the answer to a slow wake.
    application.config.update(
        RESPONSE_TIMEOUT=None, BODY_TIMEOUT=SLOWEST_BODY, MAX_CONTENT_LENGTH=LONGEST_BODY
    )
    application.register_error_handler(HTTPException, _say_http)
    for error in EXPECTED:
        application.register_error_handler(error, _say)
    application.register_blueprint(model_views(subjects.resolver))
    application.register_blueprint(lease_views(subjects.resolver.supervisor))
    application.register_blueprint(daemon_views(subjects))
    application.register_blueprint(page_views(subjects.resolver))
    application.register_blueprint(past_views(subjects.history, subjects.reloader))
    application.register_blueprint(settings_views(subjects.reloader, subjects.resolver.supervisor))
    application.register_blueprint(status_views(subjects))
    application.register_blueprint(log_views(subjects.resolver, subjects.book))
    return application


def _answer(problem: Problem) -> Response:
    accept = request.headers.get("Accept", "").encode("latin-1", "replace")
    fields, body = problem.said_to(accept)
    headers = {name.decode(): value.decode("latin-1") for name, value in fields}
    return Response(body, problem.status, headers)


async def _say(error: Exception) -> Response:
    return _answer(problem_of(error))


async def _say_http(error: HTTPException) -> Response:
    status, name = error.code or 500, (error.name or "error").lower()
    allowed = set(getattr(error, "valid_methods", None) or ())
    if status == 404 and (allowed := methods_of(request.path)):
        status, name = 405, "method not allowed"
    more = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    return _answer(Problem(status, f"{request.method} {request.path}: {name}", headers=more))
