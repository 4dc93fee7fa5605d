"""What a process does about the versions that a release record names, while its machine is slow."""

import asyncio
import threading
from pathlib import Path

import pytest

from housing_assets.deployment.fleet import FleetTarget
from housing_assets.storage import LocalStore
from housing_assets_tests.deployment.fleets import add_version
from housing_serving import release_follower
from housing_serving.metrics import Metrics
from housing_serving.model_slot import ModelSlot
from housing_serving.release_follower import ReleaseFollower
from housing_serving.releases import change
from housing_serving.settings import ServingSettings
from housing_serving.sources import FetchedModel, LoadedModel

PATIENCE_SECONDS = 60.0
LIMIT_SECONDS = 0.3


async def until_followed(follower: ReleaseFollower) -> None:
    while follower.status.state != "followed":
        assert follower.status.state in {"unasked", "none"}, follower.status.detail
        await asyncio.sleep(0.01)


def test_a_version_that_takes_long_to_compile_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "storage"
    add_version(root, 1)
    released = change("promote", 1, "test", "the first")
    FleetTarget(LocalStore(root), []).promote(1, stable=None, owner=None, change=released)
    # Files are there in milliseconds; a busy machine needs far longer than the limit for what comes then.
    monkeypatch.setattr(release_follower, "GIVE_UP_SECONDS", 0.0)
    compile_at_once, never = FetchedModel.open, threading.Event()

    def compile_slowly(fetched: FetchedModel) -> LoadedModel:
        never.wait(3 * LIMIT_SECONDS)
        return compile_at_once(fetched)

    monkeypatch.setattr(FetchedModel, "open", compile_slowly)
    settings = ServingSettings(housing_home=tmp_path, housing_source_timeout_seconds=LIMIT_SECONDS)
    metrics = Metrics()
    slot = ModelSlot(settings)
    slot.looked.set()
    follower = ReleaseFollower(settings, slot, metrics)

    async def follow() -> None:
        following = asyncio.create_task(follower.follow())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await until_followed(follower)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(follow())
    metrics.close()
    assert slot.model is not None
    assert slot.model.bundle.manifest.model_version == 1
