"""Planted secrets and planted personal values through a whole flow, and a search of everything that was written.

Every key is rotated on the way, while clients ask.
"""

from __future__ import annotations

import base64
import io
import os
import sqlite3
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import polars as pl
import pytest
from installation import Asking, Installation, Up, until

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.bootstrap.platform import open_platform

pytestmark = pytest.mark.xdist_group("written")

PASSPHRASE, S3_SECRET, OTLP_TOKEN = (
    "planted-passphrase-9c1f",
    "planted-s3-secret-77ab",
    "planted-otlp-token-51de",
)
DATABASE, LATER = "planted-database-password-3e8a", "planted-second-password-b60c"
PERSON, EMAIL, STREET, PLATE = (
    "planted-person-4711",
    "planted.ann@example.org",
    "Planted Elm Street 9",
    "UL-PLANTED-1",
)
GUESS = "taut_plantedplantedplantedplantedplantedplanted"
PATIENTS = """

patients = taut.Dataset(
    "patients",
    source=taut.files("data/patients.csv"),
    contract=taut.Contract(
        [
            taut.column("person", "string"), taut.column("email", "string"), taut.column("street", "string"),
            taut.column("plate", "string"), taut.column("age", "int", minimum=0),
        ],
        max_bad_fraction=0.9,
    ),
    subject="person",
    personal={"person": "pseudonymise", "email": "seal", "street": "redact", "plate": "tokenise"},
)
"""
ROWS = f"person,email,street,plate,age\n{PERSON},{EMAIL},{STREET},{PLATE},41\n{PERSON},{EMAIL},{STREET},{PLATE},-5\n"


def forms(value: str) -> list[bytes]:
    """How a value may lie: as it is, wide, hexadecimal, and in base64 at each of its three offsets."""
    raw = value.encode()
    found = [raw, value.encode("utf-16-le"), raw.hex().encode()]
    for offset in range(3):
        shifted = base64.b64encode(b"\0" * offset + raw)
        found.append(shifted[(0, 2, 3)[offset] : len(shifted) - 4])
    return found


def contents(path: Path) -> Iterator[bytes]:
    """Yield a file as it lies, and what is packed in it; nothing of one that went while the platform runs."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    yield data
    if data[:4] == b"PAR1":
        yield pl.read_parquet(io.BytesIO(data)).select(pl.all().cast(pl.String)).write_csv().encode()
    elif data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif data[:15] == b"SQLite format 3":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            yield "\n".join(database.iterdump()).encode()
        database.close()


def search(folder: Path, values: list[str]) -> list[str]:
    wanted = [(value, form) for value in values for form in forms(value)]
    return [
        f"{value} in {path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for content in contents(path)
        for value, form in wanted
        if form in content
    ]


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it ended meanwhile
            parents.setdefault(parent, []).append(int(entry.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest[-1])
        rest += parents.get(rest.pop(), [])
    return found


def told_to(pid: int, what: str) -> bytes:
    """The words or the environment of a process, empty where it ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Collector(HTTPServer):
    """Takes traces and keeps them."""

    def __init__(self) -> None:
        taken: list[bytes] = []
        self.taken = taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shop(released_template: Installation, tmp_path: Path, collector: Collector) -> Installation:
    shop = released_template.copy_to(tmp_path / "shop")
    FileKeys(shop.home / "keys", random=SystemRandom()).protect(PASSPHRASE, current=None)
    (tmp_path / "temporary").mkdir()
    shop.environ |= {
        "TAUT_KEYS_PASSPHRASE": PASSPHRASE, "TAUT_S3_SECRET_ACCESS_KEY": S3_SECRET, "TMPDIR": str(tmp_path / "temporary"),
        "TAUT_OTLP": f"http://127.0.0.1:{collector.server_port}", "TAUT_OTLP_RATIO": "1",
        "TAUT_OTLP_HEADERS": f"authorization=Bearer {OTLP_TOKEN}",
    }  # fmt: skip
    project = (shop.folder / "project.py").read_text()
    shop.write("project.py", project + PATIENTS)
    shop.write("data/patients.csv", ROWS)
    return shop


def say(up: Up, shop: Installation, spoken: list[str]) -> tuple[str, str]:
    """Go through the flow with everything that people and programs send; return a token and an API key."""

    def told(*words: str, typed: str = "") -> None:
        answer = shop.told(*words, typed=typed)
        assert answer.code == 0, answer
        spoken.append(answer.out + answer.err)

    told("apply")
    told("data", "ingest", "patients")
    told("data", "show", "patients")
    told("data", "quarantine", "patients")
    told("secret", "put", "db/password", typed=LATER)
    told("secret", "list")
    token = up.token()
    rotate_all(up, shop, token)
    key = str(shop("key", "create", "--principal", "tester", "--role", "predictor")["key"])
    for bearer in (token, key, GUESS, token[:-4] + "AAAA"):
        answer = up.ask(bearer)
        spoken.append(answer.text + str(answer.headers))
    wrong = [{"warehouse": "north", "email": EMAIL}, {"warehouse": ["x", EMAIL]}]
    for order in wrong:
        spoken.append("" if up.ask(token, order).status_code == 422 else f"not refused {order}")
    subject = {"authorization": f"Bearer {token}", "taut-subject": PERSON}
    asked = {"instances": [{"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5}]}
    httpx.post(f"{up.data}/v1/predict/late", json=asked, headers=subject, timeout=60)
    httpx.post(f"{up.data}/v1/predict/{PLATE}", content=EMAIL, headers=subject, timeout=60)
    httpx.post(f"{up.control}/api/v1/secret/put?value={LATER}", content=LATER, headers=subject, timeout=60)
    return token, key


def rotate_all(up: Up, shop: Installation, token: str) -> None:
    """Rotate every key while clients ask: nobody is refused, and what a new key signs is believed at once."""
    keys = [found["key"] for found in shop("keys", "list")["keys"]]
    with Asking(up, token, pause_s=0.02) as asking:
        for key in keys:
            shop("keys", "rotate", key)
            asking.more(3)
        with Asking(up, up.token(), clients=1) as anew:
            anew.more(3)
    assert (asking.refused, asking.broken, anew.refused) == ([], 0, [])
    assert {found["versions"] for found in shop("keys", "list")["keys"]} == {
        1,
        2,
    }  # of the tenant's the new one alone


def test_nothing_planted_is_found_in_anything_that_was_written(
    shop: Installation, tmp_path: Path, collector: Collector
) -> None:
    spoken: list[str] = []
    shop.told("secret", "put", "db/first", typed=DATABASE)
    with shop.up() as up:
        token, key = say(up, shop, spoken)
        opens = [PASSPHRASE, S3_SECRET]
        hidden = [*opens, OTLP_TOKEN, DATABASE, LATER, token, key]
        for pid in family(up.pid("supervisor")):
            words = told_to(pid, "cmdline")
            assert not [value for value in hidden if value.encode() in words], words
        for name in ("gateway-0", "grpc-0"):
            environment = Path(f"/proc/{up.pid(name)}/environ").read_bytes()
            assert not [value for value in opens if value.encode() in environment], name
        zygotes = [pid for pid in family(up.pid("gateway-0")) if b"zygote" in told_to(pid, "cmdline")]
        for pid in zygotes:
            assert not [value for value in hidden if value.encode() in told_to(pid, "environ")]
        until(lambda: bool(collector.taken))
        now = search(shop.home, hidden)  # write-ahead logs and temporary files of a running platform
    everything = [*hidden, GUESS, PERSON, EMAIL, STREET, PLATE]
    assert now == []
    assert search(shop.home, everything) == []
    with open_platform(
        shop.home, environ=shop.whole_environ()
    ) as platform:  # it was kept, and is read by its owner
        assert PERSON in {record.subject for record in platform.predictions.records()}
    assert search(tmp_path / "temporary", everything) == []
    sent = b"\n".join((*collector.taken, "\n".join(spoken).encode(), (shop.folder / "up.log").read_bytes()))
    assert [value for value in everything for form in forms(value) if form in sent] == []


@pytest.mark.parametrize("packed", ["plain", "hex", "base64", "parquet", "zip", "sqlite"])
def test_the_search_finds_what_is_there(tmp_path: Path, packed: str) -> None:
    """The planted fault."""
    path = tmp_path / "file"
    match packed:
        case "plain":
            path.write_bytes(b"..." + EMAIL.encode())
        case "hex":
            path.write_text(f"x{EMAIL.encode().hex()}x")
        case "base64":
            path.write_bytes(base64.b64encode(b"any" + os.urandom(2) + EMAIL.encode() + b"tail"))
        case "parquet":
            pl.DataFrame({"x": [EMAIL] * 100}).write_parquet(path, compression="zstd")
        case "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a", f"{EMAIL} " * 50)
        case "sqlite":
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE t (x)")
                database.execute("INSERT INTO t VALUES (?)", ["-" * 20_000 + EMAIL])
            database.close()
    assert search(tmp_path, [EMAIL])
    assert not search(tmp_path, ["something else"])
