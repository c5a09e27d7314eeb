"""What the local stores must refuse or survive: other users, full disks, killed writers, damage."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from storage_faults import flip_a_bit, local_blob_path
from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.durable import private_folder, staged, sweep
from taut.adapters.keys.file import FileKeys
from taut.adapters.keys.root import SCRYPT_COST
from taut.adapters.secrets.file import FileSecrets
from taut.adapters.world import SystemRandom
from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, Denied, InvalidInput, Unavailable

CHEAP = 2**10


def keys_in(folder: Path, **options: object) -> FileKeys:
    return FileKeys(folder, random=SystemRandom(), **options)  # type: ignore[arg-type]  # passed on as they are


def modes(root: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"files": set(), "folders": set()}
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        found["folders" if path.is_dir() else "files"].add(mode)
    return found


def run_limited(code: str, *, file_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run code in a process that may write no file beyond `file_bytes`: what a full disk or a quota does to it."""
    return subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(code)],  # Python keeps bytecode that was cut for whole
        capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes)),
    )  # fmt: skip


def test_everything_that_is_stored_is_private_to_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        root = tmp_path / "home"
        blobs = LocalBlobs(root / "blobs")
        blobs.put(b"x")
        blobs.put_named("a/b", b"x")
        keys = keys_in(root / "keys")
        keys.sign(b"x", purpose="model")
        FileSecrets(root / "secrets", keys=keys, random=SystemRandom()).put("a/b", "c")
    finally:
        os.umask(before)
    found = modes(root)
    assert found["folders"] == {0o700}
    assert found["files"] <= {0o400, 0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
@pytest.mark.parametrize("name", ["root.json", "model.key"])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    keys_in(tmp_path).sign(b"x", purpose="model")
    (tmp_path / name).chmod(mode)
    with pytest.raises(Denied, match="chmod 600"):
        keys_in(tmp_path).sign(b"x", purpose="model")
    (tmp_path / name).chmod(0o600)
    keys_in(tmp_path).sign(b"x", purpose="model")


def test_a_key_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys_in(folder)
    folder.chmod(0o770)
    with pytest.raises(Denied, match="chmod 700"):
        keys_in(folder)


def test_a_key_file_that_is_a_link_or_a_folder_is_refused(tmp_path: Path) -> None:
    keys_in(tmp_path / "keys").sign(b"x", purpose="model")
    path = tmp_path / "keys" / "model.key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Denied, match=r"model\.key"):
        keys_in(tmp_path / "keys").sign(b"x", purpose="model")
    path.unlink()
    path.mkdir(mode=0o600)
    with pytest.raises(Denied, match="no regular file"):
        keys_in(tmp_path / "keys").sign(b"x", purpose="model")


def test_a_wrong_or_missing_passphrase_opens_nothing(tmp_path: Path) -> None:
    keys = keys_in(tmp_path, passphrase="right", scrypt_cost=CHEAP)
    wrapped = keys.wrap(b"k", purpose="data", context=b"")
    with pytest.raises(Denied, match="passphrase is wrong"):
        keys_in(tmp_path, passphrase="wrong")
    with pytest.raises(Denied, match="protected by a passphrase"):
        keys_in(tmp_path)
    assert keys_in(tmp_path, passphrase="right").unwrap(wrapped, purpose="data", context=b"") == b"k"
    with pytest.raises(InvalidInput, match="empty"):
        keys_in(tmp_path / "other", passphrase="")


def test_a_passphrase_can_be_set_changed_and_taken_away(tmp_path: Path) -> None:
    keys = keys_in(tmp_path, scrypt_cost=CHEAP)
    wrapped = keys.wrap(b"k", purpose="data", context=b"")
    plain_root = (tmp_path / "root.json").read_bytes()
    keys.protect("one", current=None)
    with pytest.raises(Denied):
        keys_in(tmp_path)
    with pytest.raises(Denied):
        keys.protect("two", current="wrong")
    keys.protect("two", current="one")
    assert keys_in(tmp_path, passphrase="two").unwrap(wrapped, purpose="data", context=b"") == b"k"
    keys.protect(None, current="two")
    assert keys_in(tmp_path).unwrap(wrapped, purpose="data", context=b"") == b"k"
    assert b"passphrase" in plain_root or b"file" in plain_root
    with pytest.raises(Denied, match="has no passphrase"):
        keys_in(tmp_path, passphrase="two")


def test_the_default_cost_of_a_passphrase_is_high_and_a_low_one_in_the_file_is_refused(
    tmp_path: Path,
) -> None:
    assert SCRYPT_COST >= 2**17
    for cost in (1, 3, 2**9, 2**30):
        with pytest.raises(InvalidInput, match="cost"):
            keys_in(tmp_path / str(cost), passphrase="p", scrypt_cost=cost)


def test_no_key_material_lies_in_the_clear_under_a_passphrase(tmp_path: Path) -> None:
    keys = keys_in(tmp_path, passphrase="p", scrypt_cost=CHEAP)
    keys.sign(b"x", purpose="model")
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"PRIVATE" not in stored
    assert b"\x06\x08*\x86H\xce=\x03\x01\x07" not in stored  # the DER name of P-256, in every private key
    assert b'"p"' not in stored


@pytest.mark.parametrize("name", ["root.json", "model.key"])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.95])
def test_a_changed_key_file_is_refused(tmp_path: Path, name: str, at: float) -> None:
    keys_in(tmp_path, passphrase="p", scrypt_cost=CHEAP).sign(b"x", purpose="model")
    flip_a_bit(tmp_path / name, at=at)
    with pytest.raises((Corrupt, Denied, InvalidInput)):
        keys_in(tmp_path, passphrase="p").sign(b"x", purpose="model")


def test_a_key_file_of_another_purpose_put_in_place_is_corrupt(tmp_path: Path) -> None:
    keys = keys_in(tmp_path)
    keys.sign(b"x", purpose="model")
    keys.sign(b"x", purpose="bundle")
    (tmp_path / "model.key").write_bytes((tmp_path / "bundle.key").read_bytes())
    with pytest.raises(Corrupt, match=r"model\.key"):
        keys_in(tmp_path).sign(b"x", purpose="model")


def test_a_lost_root_key_is_never_replaced_in_silence(tmp_path: Path) -> None:
    keys_in(tmp_path).sign(b"x", purpose="model")
    (tmp_path / "root.json").unlink()
    with pytest.raises(Corrupt, match="missing"):
        keys_in(tmp_path)
    assert not (tmp_path / "root.json").exists()


def test_two_processes_that_use_new_keys_first_agree(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        from pathlib import Path
        from taut.adapters.keys.file import FileKeys
        from taut.adapters.world import SystemRandom
        print(FileKeys(Path({str(tmp_path / "keys")!r}), random=SystemRandom()).public_keys(purpose="ledger")[0].key_id)
    """)
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = [process.communicate(timeout=90)[0].strip() for process in processes]
    assert len(set(answers)) == 1
    assert len(answers[0]) == 16


def test_keys_work_in_a_forked_child_and_its_nonces_differ(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from taut.adapters.keys.file import FileKeys
        from taut.adapters.world import SystemRandom
        keys = FileKeys(Path({str(tmp_path)!r}), random=SystemRandom())
        keys.sign(keys.wrap(b"k", purpose="data", context=b""), purpose="data")
        children = []
        for _ in range(2):
            child = os.fork()
            if not child:
                wrapped = keys.wrap(b"k", purpose="data", context=b"")
                assert keys.sign(wrapped, purpose="data")
                os.write(1, wrapped.hex().encode() + b"\\n")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    one, two = (bytes.fromhex(line) for line in done.stdout.split())
    keys = keys_in(tmp_path)
    assert (
        keys.unwrap(one, purpose="data", context=b"") == keys.unwrap(two, purpose="data", context=b"") == b"k"
    )
    assert one[9:21] != two[9:21]


@pytest.mark.parametrize("how", ["put(b'x' * 300_000)", "put_file(source)", "put_named('n', b'x' * 300_000)"])
def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    (tmp_path / "source").write_bytes(b"x" * 300_000)
    result = run_limited(
        f"""
        from pathlib import Path
        from taut.adapters.blobs.local import LocalBlobs
        from taut.core.errors import Unavailable
        source = Path({str(tmp_path / "source")!r})
        blobs = LocalBlobs(Path({str(tmp_path / "blobs")!r}))
        try:
            blobs.{how}
        except Unavailable as error:
            print(error)
        """,
        file_bytes=100_000,
    )
    assert "free space" in result.stdout, result.stderr
    blobs = LocalBlobs(tmp_path / "blobs")
    assert list(blobs.digests()) == []
    assert list(blobs.names("")) == []
    assert list((tmp_path / "blobs" / "staging").iterdir()) == []
    assert blobs.size(digest_bytes(b"x" * 300_000)) is None


def test_a_full_disk_while_a_secret_or_key_is_replaced_keeps_the_old_one(tmp_path: Path) -> None:
    keys = keys_in(tmp_path / "keys")
    secrets = FileSecrets(tmp_path / "secrets", keys=keys, random=SystemRandom())
    secrets.put("a", "old")
    old = keys.public_keys(purpose="model")
    result = run_limited(
        f"""
        from pathlib import Path
        from taut.adapters.keys.file import FileKeys
        from taut.adapters.secrets.file import FileSecrets
        from taut.adapters.world import SystemRandom
        from taut.core.errors import Unavailable
        keys = FileKeys(Path({str(tmp_path / "keys")!r}), random=SystemRandom())
        secrets = FileSecrets(Path({str(tmp_path / "secrets")!r}), keys=keys, random=SystemRandom())
        for do in (lambda: secrets.put("a", "n" * 5000), lambda: keys.rotate(purpose="model")):
            try:
                do()
            except Unavailable as error:
                print(error)
        """,
        file_bytes=100,
    )
    assert result.stdout.count("free space") == 2, result.stderr
    assert secrets.get("a") == "old"
    assert keys.public_keys(purpose="model") == old
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == {"a.secret", "lock"}


def test_a_real_full_file_system_is_unavailable(tmp_path: Path) -> None:
    """As above on a file system that is really full, where this user may mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "taut-test", str(mount)], capture_output=True, check=False
    )
    if done.returncode:  # a limit on the size of files, above, shows the same path to those who may not mount
        assert os.geteuid() != 0 or b"denied" in done.stderr or b"not permitted" in done.stderr
        return
    try:
        blobs = LocalBlobs(mount / "blobs")
        kept = blobs.put(b"k" * 1000)
        with pytest.raises(Unavailable, match="free space"):
            blobs.put(b"x" * 600_000)
        assert list(blobs.digests()) == [kept]
        assert list((mount / "blobs" / "staging").iterdir()) == []
        assert blobs.read(kept) == b"k" * 1000
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_writer_killed_at_any_moment_leaves_nothing_visible_and_its_rest_is_swept(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from taut.adapters.blobs.local import LocalBlobs
        blobs = LocalBlobs(Path({str(tmp_path)!r}))
        print("ready", flush=True)
        count = 0
        while True:
            blobs.put(os.urandom(200_000))
    """)
    for delay_bytes in (1, 2, 3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=0.15 * delay_bytes)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        blobs = LocalBlobs(tmp_path)
        assert list((tmp_path / "staging").iterdir()) == []
        for digest in blobs.digests():
            assert len(blobs.read(digest)) == 200_000


def test_a_sweep_spares_the_file_of_a_living_writer(tmp_path: Path) -> None:
    with staged(tmp_path) as file:
        file.write(b"half")
        assert sweep(tmp_path) == 0
        assert file.path.exists()
    (tmp_path / ".staged-dead").write_bytes(b"half")
    (tmp_path / ".staged-dead").chmod(0o400)  # killed after it got its final mode
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_blob_is_healed_by_putting_it_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"value" * 100)
    path = local_blob_path(tmp_path, digest)
    flip_a_bit(path)
    with pytest.raises(Corrupt, match="restore"):
        blobs.read(digest)
    assert blobs.put(b"value" * 100) == digest
    assert blobs.read(digest) == b"value" * 100
    path.chmod(0o600)
    path.write_bytes(b"cut")
    with pytest.raises(Corrupt):
        blobs.read(digest)


def test_a_blob_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    digest = blobs.put(b"value")
    (tmp_path / "other").write_bytes(b"value")
    path = local_blob_path(tmp_path / "blobs", digest)
    path.unlink()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(Unavailable):
        blobs.read(digest)


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    with pytest.raises(InvalidInput, match="folder"):
        blobs.put_file(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidInput, match="loop"):
        blobs.put_file(tmp_path / "loop")


def test_a_store_whose_place_is_taken_by_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(Unavailable, match="taken"):
        LocalBlobs(tmp_path / "taken")
    with pytest.raises(Unavailable, match="taken"):
        FileSecrets(tmp_path / "taken", keys=keys_in(tmp_path / "keys"), random=SystemRandom())


def test_a_folder_that_exists_already_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    private_folder(tmp_path / "there" / "new")
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "there" / "new").stat().st_mode) == 0o700
