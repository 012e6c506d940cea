"""The API's routes, and what every answer has in common: CORS, error bodies, faults, the record."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from examples.analysis_api import answer
from examples.analysis_api.control import FAULT_PATH, STATS_PATH, get_stats, post_fault
from examples.analysis_api.creation import Creation, InvalidCreationError, read_creation
from examples.analysis_api.fault import Mode, replacement, reset, spoil
from examples.analysis_api.job import Job
from examples.analysis_api.state import STATE, Config, State, json_answer
from examples.analysis_api.stream import stream

_JOB = "/api/v1/analysis/{job_id}"
_ROUTE_NAMES = {
    "/api/v1/analysis": "create",
    "/api/v1/analyze": "create",
    "/legacy/run_pipeline": "create",
    f"{_JOB}/status": "status",
    _JOB: "details",
    f"{_JOB}/stream": "stream",
    "/api/v1/jobs": "list",
    "/api/v1/queue/jobs/{job_id}": "cancel",
    "/health": "health",
}
_QUEUE_READS = ("status", "metrics", "health", "jobs/{job_id}/position")
_QUEUE_WRITES = ("pause", "resume", "drain")
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


def build_app(config: Config) -> web.Application:
    """The API as an application; `app[STATE]` is what it holds."""
    app = web.Application(middlewares=[_record, _preflight, _errors, _fault])
    app[STATE] = State(config)
    app.on_response_prepare.append(_common_headers)
    app.on_shutdown.append(_close)
    app.add_routes(
        [
            web.get("/", _root, allow_head=False),
            web.get("/health", _health, allow_head=False),
            web.options("/health", _health),
            web.get("/api/v1/test", _test, allow_head=False),
            web.get("/api/v1/transcription/methods", _methods, allow_head=False),
            web.post("/api/v1/analysis", _create),
            web.post("/api/v1/analyze", _create),
            web.post("/legacy/run_pipeline", _legacy_create),
            web.get(_JOB, _details, allow_head=False),
            web.get(f"{_JOB}/status", _status, allow_head=False),
            web.get(f"{_JOB}/stream", stream, allow_head=False),
            web.get("/api/v1/jobs", _list, allow_head=False),
            web.delete("/api/v1/queue/jobs/{job_id}", _cancel),
            *[web.get(f"/api/v1/queue/{name}", _queue, allow_head=False) for name in _QUEUE_READS],
            *[web.post(f"/api/v1/queue/{name}", _queue) for name in _QUEUE_WRITES],
            web.post(FAULT_PATH, post_fault),
            web.get(STATS_PATH, get_stats, allow_head=False),
        ]
    )
    return app


def _route_name(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return _ROUTE_NAMES.get(resource.canonical, "other") if resource else "other"


async def _common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["server"] = "uvicorn"
    origin = request.headers.get("Origin")
    if origin is not None:
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-allow-credentials"] = "true"
        response.headers["vary"] = "Origin"


async def _close(app: web.Application) -> None:
    """Let streams and hung requests go: the server waits for its handlers before it ends."""
    app[STATE].closing.set()


@web.middleware
async def _record(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in (FAULT_PATH, STATS_PATH):
        request.app[STATE].stats.record(_route_name(request), request)
    return await handler(request)


@web.middleware
async def _preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    headers = request.headers
    if not (
        request.method == "OPTIONS"
        and "Origin" in headers
        and "Access-Control-Request-Method" in headers
    ):
        return await handler(request)
    response = web.Response(text="OK")
    response.headers["access-control-allow-methods"] = _METHODS
    response.headers["access-control-max-age"] = "600"
    if "Access-Control-Request-Headers" in headers:
        asked = headers["Access-Control-Request-Headers"]
        response.headers["access-control-allow-headers"] = asked
    return response


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        response = json_answer({"detail": "Method Not Allowed"}, 405)
        response.headers["allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPNotFound:
        return json_answer({"detail": "Not Found"}, 404)


@web.middleware
async def _fault(request: web.Request, handler: Handler) -> web.StreamResponse:
    state = request.app[STATE]
    route = _route_name(request)
    # A stream spoils its own events.
    mode = state.faults.take(route) if route != "stream" else None
    if mode is None:
        return await handler(request)
    if mode is Mode.STATUS_404:
        return _not_found(state, request.match_info.get("job_id", "none"))
    if mode is Mode.SLOW:
        await state.delay()
    if mode is Mode.HANG:
        await state.closing.wait()
        mode = Mode.STATUS_500
    if mode is Mode.RESET:
        reset(request)
        return web.Response()  # nobody is there to read it
    if whole := replacement(mode):
        return whole
    response = await handler(request)
    if isinstance(response, web.Response) and response.text:
        response.body = spoil(mode, response.text).encode()
    return response


async def _root(_: web.Request) -> web.Response:
    return json_answer(
        {
            "name": "KlipStream Analysis API",
            "version": answer.VERSION,
            "status": "running",
            "docs": "/docs",
            "health": "/health",
        }
    )


async def _health(_: web.Request) -> web.Response:
    return json_answer(answer.HEALTH)


async def _test(_: web.Request) -> web.Response:
    return json_answer({"status": "success", "message": "API is working"})


async def _methods(_: web.Request) -> web.Response:
    return json_answer(
        {
            "methods": ["auto", "parakeet", "deepgram", "hybrid"],
            "default": "auto",
            "gpu_available": False,
        }
    )


async def _queue(_: web.Request) -> web.Response:
    return json_answer(answer.QUEUE_UNAVAILABLE, 503)


async def _create(request: web.Request) -> web.Response:
    job = await _new_job(request)
    if isinstance(job, web.Response):
        return job
    state = request.app[STATE]
    return json_answer(answer.creation(job, state.config.now(), state.queue_length()))


async def _legacy_create(request: web.Request) -> web.Response:
    job = await _new_job(request)
    return job if isinstance(job, web.Response) else json_answer(answer.legacy_creation(job))


async def _new_job(request: web.Request) -> Job | web.Response:
    """The job that the request asks for, or the refusal."""
    state = request.app[STATE]
    try:
        creation: Creation = read_creation(
            await request.read(), request.headers.get("Content-Type", "application/json")
        )
    except InvalidCreationError as error:
        headers = {name.lower(): value for name, value in request.headers.items()}
        url = str(request.url)
        return json_answer(
            answer.validation_failure(error.errors, request.method, url, headers), 422
        )
    if creation.video_id is None:
        return json_answer(answer.invalid_url(creation.url, state.config.now()), 400)
    # The API's defect, kept on purpose: it calls blocking code on its event loop, so that nobody
    # gets an answer to anything until this creation is done.
    state.config.block(state.config.create_seconds)
    return state.create(creation, creation.video_id)


def _not_found(state: State, job_id: str) -> web.Response:
    return json_answer(answer.job_not_found(job_id, state.config.now()), 404)


async def _status(request: web.Request) -> web.Response:
    state = request.app[STATE]
    job = state.job(request.match_info["job_id"])
    if job is None:
        return _not_found(state, request.match_info["job_id"])
    return json_answer(answer.status(job, job.at(state.config.now())))


async def _details(request: web.Request) -> web.Response:
    state = request.app[STATE]
    job = state.job(request.match_info["job_id"])
    if job is None:
        return _not_found(state, request.match_info["job_id"])
    now = state.config.now()
    return json_answer(answer.details(job, job.at(now), now))


async def _list(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return json_answer(answer.listing(state.jobs(), state.config.now()))


async def _cancel(request: web.Request) -> web.Response:
    job_id = request.match_info["job_id"]
    state = request.app[STATE]
    if not state.remove(job_id):
        return json_answer(answer.nothing_to_remove(job_id), 404)
    return json_answer(answer.removal(job_id, state.config.now()))
