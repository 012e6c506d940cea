"""The typed policy file about what requests may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.core.text_rule import Action
from gateway.settings.base import Mode, Model, PositiveSeconds, Size


class ValidationRoute(Model):
    """What a route wants of its bodies; what is not said stays as the file has it.

    `schema_file` is a JSON Schema beside the policy files; `content_types` are all that it takes.
    """

    max_body: Size | None = None
    content_types: tuple[str, ...] = ()
    schema_file: str | None = None
    markup: Action | None = None
    control: Action | None = None


class OpenApiRule(Model):
    """The upstream's own description of itself (OpenAPI 3.1), which requests are held against.

    It is taken from the upstream at `path`, or from a `file` beside the policy files. While the
    upstream is away and never gave it, requests pass unchecked (`skip`) or are refused (`deny`).
    """

    source: Literal["none", "upstream", "file"] = "none"
    mode: Mode = "enforce"
    path: str = "/openapi.json"
    file: str | None = None
    refresh: PositiveSeconds = 600.0
    on_unavailable: Literal["skip", "deny"] = "skip"


class ValidationPolicy(Model):
    """`policies/validation.yaml`: bodies are held against these before anything is done with them.

    `markup` and `control` say what becomes of tags and of control characters in the strings of JSON
    bodies. `compressed` bodies are inflated to be judged, at most to `max_inflated`, or refused.
    """

    enabled: bool = True
    mode: Mode = "enforce"
    max_depth: Annotated[int, Field(ge=1, le=512)] = 32
    markup: Action = "reject"
    control: Action = "reject"
    compressed: Literal["inflate", "refuse"] = "inflate"
    max_inflated: Size = 8 * 1024**2
    routes: dict[str, ValidationRoute] = {}
    openapi: OpenApiRule = OpenApiRule()

    @property
    def files(self) -> dict[tuple[str | int, ...], str]:
        """Every file it names, by where it does."""
        named: dict[tuple[str | int, ...], str] = {
            ("routes", name, "schema_file"): route.schema_file
            for name, route in self.routes.items()
            if route.schema_file is not None
        }
        if self.openapi.source == "file" and self.openapi.file is not None:
            named["openapi", "file"] = self.openapi.file
        return named
