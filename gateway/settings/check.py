"""Rules that no single value breaks on its own: what `gateway.yaml` says must fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError

from gateway.core.contract import FIELDS
from gateway.core.job import State
from gateway.core.signature import secret_key
from gateway.settings.check_redis import redis
from gateway.settings.check_tracing import tracing
from gateway.settings.check_worker import workers
from gateway.settings.health import ComponentName
from gateway.settings.job import CreateRoute, JobContract, JobRoute
from gateway.settings.model import Settings
from gateway.settings.problem import Problem, nearest
from gateway.settings.upstream import Upstream
from gateway.settings.yaml import Location

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
JOB_ROUTES = ("status", "details", "stream", "cancel")  # each about one job, by its id
REQUIRED_FIELDS = ("id", "state")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FUNCTION = re.compile(r"[A-Za-z0-9_/]+(\.[A-Za-z0-9_]+)?:[A-Za-z0-9_]+")
_METHOD = re.compile(r"[A-Z][A-Z0-9-]*")
_NEVER_PASSED = frozenset({"CONNECT", "TRACE"})
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")
MIN_SECRET = 32  # characters


def check(settings: Settings, *, whole: bool = True) -> Iterator[Problem]:
    """Every rule that `settings` break.

    `whole` False leaves out the rules about what is absent: a part that could not be read may only
    seem to be.
    """
    yield from _upstream(settings.upstream)
    yield from _server(settings)
    yield from _jobs(settings.jobs, whole=whole)
    yield from _webhooks(settings)
    yield from _convex(settings)
    yield from redis(settings)
    yield from tracing(settings.tracing)
    yield from workers(settings)
    for name, dependency in settings.health.dependencies.items():
        here = ("health", "dependencies", name)
        yield from url(dependency.url, (*here, "url"))
        if name in get_args(ComponentName):
            yield here, f"{name} is a component of the gateway's own; give it another name"


def url(text: str, location: Location) -> Iterator[Problem]:
    """The problems of an http(s) base URL."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable:
        yield location, "must be a URL like http://127.0.0.1:3001"
    elif parts.username is not None or parts.password is not None:
        yield location, "must not carry a user name or password"
    elif parts.query or parts.fragment:
        yield location, "must not have a query or a fragment"


def path(text: str, placeholders: tuple[str, ...], location: Location) -> Iterator[Problem]:
    """The problems of a path template that must name exactly these placeholders."""
    if not text.startswith("/") or any(mark in text for mark in " ?#"):
        yield location, "must be a path like /api/v1/jobs, without a query"
    found = tuple(_PLACEHOLDER.findall(text))
    if found != placeholders or "{" in _PLACEHOLDER.sub("", text):
        wanted = "the placeholder {job_id} once" if placeholders else "no placeholder"
        yield location, f"must hold {wanted}, and nothing else in braces"


def methods(names: tuple[str, ...], location: Location) -> Iterator[Problem]:
    """The problems of a list of request methods."""
    for index, name in enumerate(names):
        if name not in METHODS:
            yield (*location, index), f"is not a method; {nearest(name.upper(), METHODS)}"


def further_methods(names: tuple[str, ...], location: Location) -> Iterator[Problem]:
    """The problems of a list of methods beside the usual ones."""
    for index, name in enumerate(names):
        if not _METHOD.fullmatch(name):
            yield (*location, index), "is not a method: capital letters, digits and '-'"
        elif name in _NEVER_PASSED:
            yield (*location, index), "is never passed: it would be for the gateway itself"


def networks(texts: tuple[str, ...], location: Location) -> Iterator[Problem]:
    """The problems of a list of addresses and CIDR ranges."""
    for index, text in enumerate(texts):
        try:
            ip_network(text)
        except ValueError as error:
            reason = "its host bits are set" if "host bits" in str(error) else "not an address"
            yield (*location, index), f"must be a range like 10.0.0.0/8 or fd00::/8: {reason}"


def _upstream(upstream: Upstream) -> Iterator[Problem]:
    if upstream.url.startswith("unix:"):
        if not upstream.url.startswith("unix:/"):
            yield ("upstream", "url"), "must name the socket by its whole path: unix:/run/app.sock"
    else:
        yield from url(upstream.url, ("upstream", "url"))
    if upstream.tls.ca is not None and not Path(upstream.tls.ca).is_file():
        yield ("upstream", "tls", "ca"), f"names {upstream.tls.ca}, which is not a file"
    if not upstream.health_path.startswith("/"):
        yield ("upstream", "health_path"), "must begin with /"
    for index, route in enumerate(upstream.admin):
        here = ("upstream", "admin", index)
        if not route.path.startswith("/"):
            yield (*here, "path"), "must begin with /"
        yield from methods(route.methods, (*here, "methods"))


def _server(settings: Settings) -> Iterator[Problem]:
    server = settings.server
    yield from networks(server.trusted_proxies, ("server", "trusted_proxies"))
    yield from further_methods(server.further_methods, ("server", "further_methods"))
    for index, host in enumerate(server.hosts):
        if not _HOST.fullmatch(host):
            yield (
                ("server", "hosts", index),
                "must be a name like api.example.com or *.example.com, or an address; no port",
            )
    if server.tls is not None:
        for name, file in (("certificate", server.tls.certificate), ("key", server.tls.key)):
            if not Path(file).is_file():
                yield ("server", "tls", name), f"names {file}, which is not a file"
    if server.public.port and server.public.port == server.admin.port:
        yield ("server", "admin", "port"), "must differ from server.public.port"


def _jobs(jobs: JobContract, *, whole: bool) -> Iterator[Problem]:
    here: Location = ("jobs",)
    for index, route in enumerate(jobs.create):
        yield from _route(route, (), (*here, "create", index))
    for name in JOB_ROUTES:
        if (about := getattr(jobs, name)) is not None:
            yield from _route(about, ("job_id",), (*here, name))
    if jobs.list is not None:
        yield from _route(jobs.list, (), (*here, "list"))
        yield from _expression(jobs.list.items, (*here, "list", "items"))
    yield from _fields(jobs.fields, (*here, "fields"))
    yield from _states(jobs)
    secret = jobs.tickets.secret_key
    if secret is not None and 0 < len(secret.get_secret_value().strip()) < MIN_SECRET:
        yield (*here, "tickets", "secret_key"), f"must have {MIN_SECRET} characters or more"
    if jobs.watch.poll.min > jobs.watch.poll.max:
        yield (*here, "watch", "poll", "min"), "must not be longer than jobs.watch.poll.max"
    if whole:
        yield from _absent(jobs)


def _absent(jobs: JobContract) -> Iterator[Problem]:
    if not jobs.create and all(getattr(jobs, name) is None for name in (*JOB_ROUTES, "list")):
        return  # a plain proxy that follows no jobs
    if jobs.status is None:
        yield ("jobs",), "status is required: without it no job can be followed"
    for name in REQUIRED_FIELDS:
        if name not in jobs.fields:
            yield ("jobs", "fields"), f"{name} is required: where answers say a job's {name}"


def _route(
    route: CreateRoute | JobRoute, placeholders: tuple[str, ...], here: Location
) -> Iterator[Problem]:
    yield from path(route.path, placeholders, (*here, "path"))
    if not route.methods:
        yield (*here, "methods"), "must name at least one method"
    yield from methods(route.methods, (*here, "methods"))
    yield from _fields(route.fields, (*here, "fields"))


def _fields(fields: dict[str, str], here: Location) -> Iterator[Problem]:
    for name, expression in fields.items():
        if name not in FIELDS:
            yield (*here, name), f"unknown field; {nearest(name, FIELDS)}"
        else:
            yield from _expression(expression, (*here, name))


def _expression(text: str, here: Location) -> Iterator[Problem]:
    try:
        jmespath.compile(text)
    except JMESPathError as error:
        # "Invalid jmespath expression: what is wrong:", and then the text with a mark under it.
        reason = str(error).splitlines()[0].split(": ", 1)[-1].rstrip(":")
        yield here, f"is not a JMESPath expression: {reason}"


def _states(jobs: JobContract) -> Iterator[Problem]:
    known = [state.value for state in State]
    meant: dict[str, str] = {}
    for name, words in jobs.states.items():
        here = ("jobs", "states", name)
        if name not in known:
            yield here, f"unknown state; {nearest(name, known)}"
        for index, word in enumerate(words):
            if meant.setdefault(word, name) != name:
                yield (*here, index), f"{word!r} means {meant[word]} already"


def _webhooks(settings: Settings) -> Iterator[Problem]:
    webhooks = settings.webhooks
    yield from networks(webhooks.addresses.allow, ("webhooks", "addresses", "allow"))
    if webhooks.timeout > webhooks.max_timeout:
        yield ("webhooks", "timeout"), "must not be longer than webhooks.max_timeout"
    if webhooks.max_retries > len(webhooks.retry_delays):
        yield (
            ("webhooks", "max_retries"),
            f"must not exceed the {len(webhooks.retry_delays)} delays of webhooks.retry_delays",
        )
    if webhooks.secret_key is not None:
        try:
            secret_key(webhooks.secret_key.get_secret_value())
        except ValueError as error:
            yield ("webhooks", "secret_key"), str(error)


def _convex(settings: Settings) -> Iterator[Problem]:
    if settings.convex.url is not None:
        yield from url(settings.convex.url, ("convex", "url"))
    for name, function in settings.convex.functions:
        if function is not None and not _FUNCTION.fullmatch(function):
            yield (
                ("convex", "functions", name),
                "must be a function's path like jobs:updateProgress",
            )
