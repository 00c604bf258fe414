"""`metisfl join` against a real controller: through a proxy, and past a load balancer that cuts silent connections."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from metisfl.bundle import BundleSpec, make_bundle, write_bundle
from tests.integration.controller.conftest import until
from tests.integration.controller.proxy import Proxy, proxying

SITE: dict[str, Any] = {
    "learner": {"entrypoint": "metisfl_learner.examples.breast_cancer:BreastCancerLearner"},
    "learnerGroups": [{"name": "hospital", "external": True, "maxLearners": 2}],
    "security": {"tls": {"mode": "Disabled"}},
    "training": {"epochs": 1, "batchSize": 64},
}
IDLE_SECONDS = 2.5


@asynccontextmanager
async def joining(folder: Path, endpoint: str, ordinal: int, proxy: Proxy) -> AsyncIterator[asyncio.subprocess.Process]:
    """`metisfl join` with nothing but a bundle and the way through the proxy."""
    bundle = folder / "bundle.yaml"
    spec = BundleSpec(
        federation="test",
        group="hospital",
        max_learners=2,
        endpoint=endpoint,
        entrypoint=SITE["learner"]["entrypoint"],
    )
    write_bundle(bundle, make_bundle(spec))
    around = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "metisfl", "join", str(bundle), f"--ordinal={ordinal}"),
        cwd=folder,
        env=around | {"https_proxy": proxy.url},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_sites_join_through_a_proxy_and_stay_while_nothing_happens(
    served: Callable[..., Any], tmp_path: Path
) -> None:
    spec = {**SITE, "selection": {"minLearners": 2}, "termination": {"maxRounds": 2}}
    async with served(lease_seconds=4, **spec) as table, proxying(IDLE_SECONDS) as proxy:
        host, _, port = proxy.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"CONNECT {table.grpc} HTTP/1.1\r\n\r\n".encode())
        async with joining(tmp_path, table.grpc, 0, proxy) as first:
            await table.until_status(lambda s: any(x["connected"] for x in s["learners"]))
            # The silent one is cut; the learner's heartbeats keep its own for twice as long.
            await until(lambda: any(tunnel.cut for tunnel in proxy.tunnels))
            while await reader.read(1000):
                pass
            writer.close()
            (kept,) = [tunnel for tunnel in proxy.tunnels if not tunnel.cut]
            await until(lambda: kept.age > 2 * IDLE_SECONDS)
            assert not kept.cut
            async with joining(tmp_path, table.grpc, 1, proxy) as second:
                status = await table.until_status(lambda s: s["state"] == "Complete")
                assert await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 30) == [0, 0]
    assert {learner["id"]: learner["contributions"] for learner in status["learners"]} == {
        "hospital-0": 2,
        "hospital-1": 2,
    }
    assert {tunnel.target for tunnel in proxy.tunnels} == {table.grpc}
    assert len(proxy.tunnels) == 3, "one connection for each learner, and the silent one"


async def test_a_learner_with_a_place_that_is_not_there_is_refused(served: Callable[..., Any], tmp_path: Path) -> None:
    async with served(**SITE) as table, proxying() as proxy, joining(tmp_path, table.grpc, 2, proxy) as process:
        assert await asyncio.wait_for(process.wait(), 30) == 5
