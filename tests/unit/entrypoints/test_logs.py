"""Lines of a log: one JSON object each, with what happened and without what people sent."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taut.core.errors import Unavailable
from taut.entrypoints.logs import MAX_TEXT, Journal, Log, clean, install

PLANTED = "hunter2-planted"


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, line: str) -> None:
        assert line.endswith("\n")
        assert "\n" not in line[:-1]
        self.text += line

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> Log:
    return Log("gateway-0", lines)


def fail_with(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as raised:
        return raised


def test_a_line_says_when_who_what_and_the_request(log: Log, lines: Lines) -> None:
    log.info("ready", epoch=3, request_id=None)
    log.failure("request failed", fail_with(ZeroDivisionError(PLANTED)), request_id="req_1")

    ready, failed = lines.all
    assert ready == {
        "time": ready["time"],
        "level": "info",
        "process": "gateway-0",
        "event": "ready",
        "epoch": 3,
    }
    assert ready["time"].endswith("Z")
    assert (failed["level"], failed["request_id"], failed["error"]) == ("error", "req_1", "ZeroDivisionError")
    assert any("fail_with" in place for place in failed["places"])


def test_the_message_of_an_unexpected_failure_is_not_said_and_that_of_ours_is(log: Log, lines: Lines) -> None:
    try:
        try:
            raise ValueError(f"saw {PLANTED} in the body")
        except ValueError as cause:
            raise KeyError(PLANTED) from cause
    except KeyError as error:
        log.failure("request failed", error)
    log.failure("could not publish", fail_with(Unavailable("the database is away: start it")))
    log.failure("could not write", fail_with(OSError(28, "No space left on device")))

    assert PLANTED not in lines.text
    assert lines.all[0]["causes"] == ["ValueError"]
    assert lines.all[1]["message"] == "the database is away: start it"
    assert lines.all[1]["code"] == "unavailable"
    assert "No space left" in lines.all[2]["message"]


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://user:{PLANTED}@host/db", f"Authorization: Bearer {PLANTED}", f"password={PLANTED}",
        f'"passphrase": "{PLANTED}"', f"TAUT_S3_SECRET_ACCESS_KEY: api_key={PLANTED}", f"taut_k1_{PLANTED}",
        f"eyJhbGciOiJFUzI1NiJ9.{PLANTED}.sig", f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        f"-----BEGIN EC PRIVATE KEY-----\n{PLANTED}",
    ],
)  # fmt: skip
def test_what_looks_like_a_credential_is_blotted_out(text: str, log: Log, lines: Lines) -> None:
    assert PLANTED not in clean(text)
    log.failure("failed", fail_with(Unavailable(text)))
    log.warning(text, more=[text], path=Path("/x") / "y")
    assert PLANTED not in lines.text


def test_a_log_that_cannot_be_written_stops_nothing_and_long_texts_are_cut() -> None:
    def full(_line: str) -> None:
        raise OSError(28, "No space left on device")

    Log("control", full).error("said")
    assert len(clean("x" * 10_000)) == MAX_TEXT


@pytest.fixture
def own_hooks() -> Iterator[None]:
    """The process's hooks as they were, afterwards."""
    root = logging.getLogger()
    before = (sys.excepthook, threading.excepthook, root.handlers[:], root.level)
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, root.handlers[:] = before[:3]
    root.setLevel(before[3])


@pytest.mark.usefixtures("own_hooks")
def test_libraries_and_failures_that_nobody_caught_speak_through_it_too(log: Log, lines: Lines) -> None:
    install(log)
    library = logging.getLogger("uvicorn.error")
    library.setLevel(logging.NOTSET)  # a gateway that ran in this process before has raised it
    library.info("chatter")
    library.warning("asked for %s", PLANTED)
    try:
        raise ValueError(PLANTED)
    except ValueError:
        library.exception("Exception in ASGI application\n%s", PLANTED)
    sys.excepthook(ValueError, ValueError(PLANTED), None)
    thread = threading.Thread(target=lambda: int(PLANTED), name="traces")
    thread.start()
    thread.join()

    assert PLANTED not in lines.text
    assert [line["event"] for line in lines.all] == ["library", "library", "crashed", "thread crashed"]
    assert lines.all[1]["said"] == "Exception in ASGI application"
    assert (lines.all[1]["error"], lines.all[3]["thread"]) == ("ValueError", "traces")


def test_a_journal_is_its_owners_and_is_put_aside_when_it_is_long(tmp_path: Path) -> None:
    path = tmp_path / "log" / "supervisor.log"
    Log("supervisor", Journal(path)).info("started", name="control")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.truncate(17 * 2**20)
    Log("supervisor", Journal(path)).info("ready", name="control")

    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["ready"]
    assert path.with_suffix(".log.1").exists()


def test_a_journal_does_not_follow_a_link_that_was_put_in_its_place(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    (tmp_path / "supervisor.log").symlink_to(victim)
    Log("supervisor", Journal(tmp_path / "supervisor.log")).info("started")

    assert victim.read_text() == ""
