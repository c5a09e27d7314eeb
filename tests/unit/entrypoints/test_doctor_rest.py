"""What the doctor says of what lies in the clear: by the kernel's tables, and never better than it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.bootstrap.config import Config
from taut.bootstrap.platform import open_platform
from taut.core.errors import InvalidInput
from taut.entrypoints.doctor_rest import at_rest, volume_of

TABLE = """\
21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /ram rw - tmpfs tmpfs rw
23 21 253:0 / /safe rw - ext4 /dev/mapper/safe rw
24 21 253:1 / /group rw - xfs /dev/mapper/vg-home rw
25 21 253:2 / /half rw - xfs /dev/mapper/vg-half rw
26 21 0:40 / /with\\040space rw - ecryptfs x rw
"""


@pytest.fixture
def kernel(tmp_path: Path) -> dict[str, Path]:
    """A machine: LUKS at /safe, a volume group on it at /group, and at /half one on it and on a plain disk."""
    mounts, block = tmp_path / "mountinfo", tmp_path / "block"
    mounts.write_text(TABLE)
    for device, uuid, slaves in (
        ("8:1", "", ()),
        ("253:0", "CRYPT-LUKS2-1234", ("8:1",)),
        ("253:1", "LVM-abc", ("253:0",)),
        ("253:2", "LVM-def", ("253:0", "8:1")),
    ):
        below = block / device / "slaves"
        below.mkdir(parents=True)
        if uuid:
            (block / device / "dm").mkdir()
            (block / device / "dm" / "uuid").write_text(uuid)
        for slave in slaves:
            (below / slave).symlink_to(block / slave)
    return {"mounts": mounts, "block": block}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/anywhere", "unknown"), ("/ram/x", "memory"), ("/safe", "encrypted"), ("/group/home", "encrypted"),
        ("/half", "unknown"), ("/with space/x", "encrypted"), ("/rammed", "unknown"),
    ],
)  # fmt: skip
def test_a_volume_is_called_encrypted_only_where_all_below_it_is(
    kernel: dict[str, Path], path: str, expected: str
) -> None:
    assert volume_of(Path(path), **kernel) == expected


def test_where_the_kernel_says_nothing_nothing_is_called_encrypted(tmp_path: Path) -> None:
    assert volume_of(Path("/"), mounts=tmp_path / "none", block=tmp_path) == "unknown"


def test_the_doctor_names_what_lies_in_the_clear_and_where(kernel: dict[str, Path]) -> None:
    bare = at_rest(Path("/anywhere"), {}, **kernel)
    postgres = {"TAUT_RECORDS": "postgresql://db/taut", "TAUT_SCRATCH": "/ram"}
    half = at_rest(Path("/anywhere"), postgres, **kernel)
    safe = at_rest(Path("/safe"), {"TAUT_SCRATCH": "/ram"}, **kernel)
    disk = at_rest(Path("/safe"), {"TAUT_SCRATCH": "/mnt"}, **kernel)

    assert bare.state == "warn"
    assert "the database in /anywhere" in bare.said
    assert half.state == "warn"
    assert "rows" not in half.said
    assert "database" not in half.said
    assert safe.state == "ok"
    assert disk.said.endswith(
        f"rows while they are worked on in {Config.load(Path('/safe'), {'TAUT_SCRATCH': '/mnt'}).work}"
    )


def test_two_homes_share_a_scratch_folder_and_not_what_is_in_it(tmp_path: Path) -> None:
    environ = {"TAUT_SCRATCH": str(tmp_path / "scratch")}
    with open_platform(tmp_path / "a", environ=environ) as first:
        (first.scratch / "under-way").write_text("x")
        with open_platform(tmp_path / "b", environ=environ) as second:
            assert second.scratch != first.scratch
            assert (first.scratch / "under-way").exists()
        with first.blobs.local(first.blobs.put(b"rows")) as copy:
            assert copy.is_relative_to(tmp_path / "scratch")


def test_a_scratch_folder_that_jobs_cannot_share_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInput, match="TAUT_SCRATCH"),
        open_platform(tmp_path / "home", environ={"TAUT_SCRATCH": "/dev/shm/x"}),
    ):
        pass
