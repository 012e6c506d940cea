"""How many jobs there may be at once, asked of whole gateways."""

from __future__ import annotations

from pathlib import Path

from tests.support.system import KEY, OTHER_KEY, VIDEO, AnalysisApi, GatewayProcess

CREATE = "/api/v1/analysis"


async def test_a_job_keeps_the_place_of_its_key(tmp_path: Path) -> None:
    bounds = {"admission": {"max_concurrent": 10, "max_per_key": 1}}
    async with (
        AnalysisApi(speed=1.0) as api,  # no job ends while the test lasts
        GatewayProcess(tmp_path, api.url, jobs=bounds) as gateway,
    ):
        assert (await gateway.request("POST", CREATE, {"url": VIDEO})).status == 200
        full = await gateway.request("POST", CREATE, {"url": VIDEO})
        assert full.status == 503
        assert "1 jobs of this key are active" in full.document["detail"]
        assert (await gateway.request("POST", CREATE, {"url": VIDEO}, key=OTHER_KEY)).status == 200

        await gateway.terminate()
        await gateway.start()
        assert (await gateway.request("POST", CREATE, {"url": VIDEO}, key=KEY)).status == 503
