"""A pod of config/kubernetes as processes: started and ended in the order that a kubelet keeps.

Native sidecars start before the app and get their SIGTERM when it has exited; preStop hooks of both
run at once (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#termination-with-sidecars).
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from aiohttp.test_utils import unused_port

from gateway.settings.load import load
from tests.support.system import ROOT, AnalysisApi, GatewayProcess, clean_environment

_DEPLOYMENT = ROOT / "config" / "kubernetes" / "base" / "deployment.yaml"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the Deployment says of times, in seconds, each shortened alike."""

    probe_seconds: float
    app_wait_seconds: float
    drain_delay_seconds: float
    drain_timeout_seconds: float
    prestop: tuple[str, ...]

    @classmethod
    def shipped(cls, scale: float) -> Self:
        """The base's, `scale` times as long."""
        spec = yaml.safe_load(_DEPLOYMENT.read_text())["spec"]["template"]["spec"]
        (sidecar,), (app,) = spec["initContainers"], spec["containers"]
        given = {each["name"]: each["value"] for each in sidecar["env"] if "value" in each}
        server = load(ROOT / "gateway.yaml", given).server
        return cls(
            probe_seconds=sidecar["readinessProbe"]["periodSeconds"] * scale,
            app_wait_seconds=app["lifecycle"]["preStop"]["sleep"]["seconds"] * scale,
            drain_delay_seconds=server.drain_delay * scale,
            drain_timeout_seconds=server.drain_timeout * scale,
            prestop=tuple(sidecar["lifecycle"]["preStop"]["exec"]["command"]),
        )


class Pod:
    """The sidecar and its app, each a process."""

    def __init__(self, folder: Path, manifest: Manifest, *, speed: float = 20.0) -> None:
        folder.mkdir()
        self._manifest = manifest
        self.app = AnalysisApi(speed=speed)
        self.app.port = unused_port()
        server = {
            "drain_delay": manifest.drain_delay_seconds,
            "drain_timeout": manifest.drain_timeout_seconds,
        }
        self.gateway = GatewayProcess(folder, self.app.url, server=server)

    async def start(self) -> None:
        """The sidecar, and when it is ready the app."""
        await self.gateway.start()
        assert await self.ready()
        await self.app.start()

    async def ready(self) -> bool:
        """What the readiness probe finds."""
        return (await self.gateway.ask_admin("/health/ready")).status == 200

    async def leave(self) -> None:
        """Both preStop hooks; the app goes on until its own has ended."""
        await asyncio.gather(self.run_hook(), asyncio.sleep(self._manifest.app_wait_seconds))

    async def close(self) -> None:
        """Whatever still runs is killed."""
        await self.gateway.close()
        await self.app.stop()

    async def run_hook(self) -> None:
        """The sidecar's preStop, which must succeed."""
        program, *arguments = self._manifest.prestop
        assert program == "gateway"
        hook: asyncio.subprocess.Process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            program,
            *arguments,
            cwd=ROOT,
            env={**clean_environment(), "GATEWAY_ADMIN_URL": self.gateway.admin},
        )
        assert await hook.wait() == 0

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
