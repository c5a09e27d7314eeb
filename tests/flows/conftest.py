"""Installations that flows begin from: built once a test session, copied where a test changes them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation
from scaled import Scaled, open_scaled


@pytest.fixture(scope="session")
def released_template(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Installation:
    """The project of `taut init`, ingested, trained, approved and released. Only to be copied."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # of all processes of pytest-xdist
    folder = shared / "released"
    with (shared / "released.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "released.done").exists():
            _release(shared, folder)
            (shared / "released.done").touch()
    return Installation(folder)


def _release(shared: Path, folder: Path) -> None:
    Installation(shared)("init", folder.name)
    made = Installation(folder)
    made("apply")
    for dataset in ("orders", "backlog"):
        made("data", "ingest", dataset)
    assert made("train", "late")["verdict"] == "admit"
    made("model", "approve", "late@1")
    assert made("release", "start", "late", "1")["state"] == "live"


@pytest.fixture
def released(released_template: Installation, tmp_path: Path) -> Installation:
    """An installation of the test's own with `late@1` live and data to ingest into."""
    return released_template.copy_to(tmp_path / "shop")


@pytest.fixture(scope="session")
def scaled(tmp_path_factory: pytest.TempPathFactory, s3_url: str) -> Iterator[Scaled]:
    """The project of `taut init` with `late@1` live, on PostgreSQL and S3; for tests of the group "scaled" only."""
    with open_scaled(tmp_path_factory.mktemp("scaled"), s3_url) as opened:
        yield opened
