"""Convex's HTTP API as any client sees it, to call the functions of `convex/` by hand."""

from __future__ import annotations

from typing import Any

import aiohttp

from tests.support.convex import ConvexServer

UPDATE = "jobs:updateProgress"
OLD_STORE = "01K0000000000000000000000A"
NEW_STORE = "01K0000000000000000000000B"


class Caller:
    """One client of one deployment; `value` and `error` assert which of the two an answer is."""

    def __init__(self, server: ConvexServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def post(
        self, route: str, body: object, *, key: str | None = None, scheme: str = "Convex"
    ) -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"Authorization": f"{scheme} {key}"}
        async with self.session.post(
            f"{self.server.url}/api/{route}", json=body, headers=headers
        ) as response:
            return response.status, await response.json()

    async def call(self, route: str, path: str, args: object) -> dict[str, Any]:
        body = {"path": path, "args": args, "format": "json"}
        status, answer = await self.post(route, body, key=self.server.deploy_key)
        assert status == 200
        return answer

    async def value(self, route: str, path: str, args: object) -> Any:
        answer = await self.call(route, path, args)
        assert answer["status"] == "success", answer
        return answer["value"]

    async def error(self, route: str, path: str, args: object) -> dict[str, Any]:
        answer = await self.call(route, path, args)
        assert answer["status"] == "error", answer
        return answer

    async def update(self, **fields: object) -> Any:
        return await self.value("mutation", UPDATE, progress(**fields))

    async def rows(self, table: str) -> list[dict[str, Any]]:
        rows = await self.server.dump(table)
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]

    async def job(self) -> dict[str, Any]:
        (row,) = await self.rows("jobs")
        return row

    async def video(self) -> dict[str, Any]:
        (row,) = await self.rows("videos")
        return row


def progress(**fields: object) -> dict[str, object]:
    """Arguments of `jobs:updateProgress`: what is always there, and `fields`."""
    return {"jobId": "j1", "incarnation": OLD_STORE, "sequence": 1, "videoId": "v1"} | fields
