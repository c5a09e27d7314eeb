"""From a finding follows what the project says: people are told until they heard, and somebody is contained for a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from taut.adapters.stories import JournalStories
from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.canonical import digest_bytes
from taut.core.errors import Denied, NotFound, Unavailable
from taut.lifecycle.plans import Surroundings
from taut.ports.mail import Letter, MailServer
from taut.ports.stories import StoryState
from taut.ports.web import WebAnswer
from taut.project.archive import write_archive
from taut.project.manifest import ContainSpec, Manifest, ReceiverSpec
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.costs import KINDS as COSTS
from taut.trust.deliveries import Delivery, Outcome
from taut.trust.findings import Finding, Sighting
from taut.workflows.alarms.policy import orders, told
from taut.workflows.alarms.telling import PAUSES, Tell, Teller, signed, tell

CROWDS = Sighting(
    kind="share", principal="app", resource="endpoint:any", score=20.0, severity="critical", summary="app crowds out",
    evidence={"share": 0.8}, closes="less",
)  # fmt: skip
OPS = ReceiverSpec(name="ops", kind="webhook", url="https://hooks.example.org/x", secret="alerts/ops")
TEAM = ReceiverSpec(
    name="team",
    kind="email",
    url="smtps://mail.example.org",
    to=("a@example.org",),
    sender="taut@example.org",
)
THROTTLE = ContainSpec(name="crowding", on="share", action="throttle", per_s=5.0)
PROJECT = Manifest(receivers=(OPS, TEAM), containments=(THROTTLE,))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Platform(Config(home=home), stack)
        made.records = memory_records(*all_metadata())
        stack.callback(made.records.close)
        made.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
        made.identity.create_principal("ada", kind="human", roles=["admin"], actor="owner")
        yield made


def apply(platform: Platform, manifest: Manifest) -> None:
    bundle = write_archive({"project.py": b"x = 1\n"})
    whole = msgspec.structs.replace(manifest, bundle=digest_bytes(bundle))
    platform.plans.apply(whole, bundle, actor="ada", surroundings=Surroundings())


def test_a_finding_tells_contains_and_lets_go_in_its_own_transaction(platform: Platform) -> None:
    apply(platform, PROJECT)
    (found,) = platform.watches.findings.report([CROWDS])
    platform.watches.findings.report([CROWDS])

    (held,) = platform.alarms.containments.list()
    assert (held.principal, held.action, held.per_s, held.begun_by, held.alert) == (
        "app",
        "throttle",
        5.0,
        "policy",
        found.id,
    )
    assert "crowding: share (share 0.8)" in held.reason
    assert [(one.receiver, one.change, one.state) for one in platform.alarms.deliveries.list()] == [
        ("team", "opened", "waiting"),
        ("ops", "opened", "waiting"),
    ]
    assert [one.name for one in platform.stories.list()] == ["tell", "tell"]
    assert [one.principal for one in platform.alarms.contained()] == ["app"]

    platform.alarms.dismiss(found.id, actor="ada", why="the new mobile app")
    assert platform.alarms.contained() == ()
    assert len(platform.alarms.deliveries.list()) == 4
    assert {leaf.kind for leaf in platform.ledger.show(subject=f"containment:{held.id}")} == {
        "containment.begun",
        "containment.lifted",
    }


def test_a_breaker_closes_by_itself_where_other_containments_wait_for_their_time(platform: Platform) -> None:
    breaker = ContainSpec(name="breaker", on="cost", action="throttle", per_s=1.0)
    apply(platform, msgspec.structs.replace(PROJECT, containments=(*PROJECT.containments, breaker)))
    findings, contained = platform.watches.findings, platform.alarms.contained
    costly = Sighting(
        kind="cost.amplification", principal="app", resource="endpoint:delay", score=20.0, severity="critical"
    )
    findings.observe(COSTS, [costly])
    findings.observe(["share"], [CROWDS])
    assert sorted(one.per_s for one in contained()) == [1.0]  # one throttle at a time: the second prolongs it

    findings.observe(["share"], [])
    assert [one.per_s for one in contained()] == [1.0]
    (over,) = findings.list(state="open")
    findings.observe(COSTS, [])
    assert contained() == ()
    [leaf] = platform.ledger.show(kind="containment.lifted")
    assert leaf.body["why"] == f"alert {over.id} was lapsed: not seen any more"


def test_the_last_administrator_is_not_contained_by_any_policy_and_that_is_said(platform: Platform) -> None:
    apply(platform, PROJECT)
    (found,) = platform.watches.findings.report([msgspec.structs.replace(CROWDS, principal="ada")])

    assert platform.alarms.containments.list() == ()
    (leaf,) = platform.ledger.show(kind="containment.refused")
    assert (leaf.subject, leaf.body["principal"]) == (f"finding:{found.id}", "ada")
    assert "the last" in leaf.body["why"]


def finding(**more: Any) -> Finding:
    fields: dict[str, Any] = {
        "id": "finding_1", "kind": "abuse.inversion", "principal": "app", "group": "", "resource": "endpoint:delay",
        "score": 1.0, "evidence": {"climbs": 9}, "severity": "warning", "summary": "it climbs", "closes": "rest",
        "since": datetime(2026, 1, 1, tzinfo=UTC), "seen": datetime(2026, 1, 1, tzinfo=UTC), "state": "open",
    }  # fmt: skip
    return Finding(**{**fields, **more})


def test_kinds_and_severities_say_who_is_told_and_what_is_done() -> None:
    loud = msgspec.structs.replace(OPS, name="loud", severity="critical")
    abuse = msgspec.structs.replace(OPS, name="abuse", kinds=("abuse",))
    other = msgspec.structs.replace(OPS, name="other", kinds=("abuse.inver",))
    held = msgspec.structs.replace(THROTTLE, on="abuse", severity="warning")
    made = Manifest(receivers=(loud, abuse, other), containments=(held,))

    assert [one.name for one in told(made, finding())] == ["abuse"]
    assert [one.name for one in told(made, finding(severity="critical"))] == ["loud", "abuse"]
    assert [one.principal for one in orders(made, finding(), "raised")] == ["app"]
    assert not [*orders(made, finding(), "ended"), *orders(made, finding(principal="", group="g"), "opened")]
    assert not [
        *orders(made, finding(severity="info"), "opened"),
        *orders(made, finding(kind="share"), "opened"),
    ]


class Outside:
    """The web and the mail of others, as a script of answers."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.letters: list[tuple[MailServer, Letter]] = []

    def get(self, url: str) -> WebAnswer:
        raise NotImplementedError

    def post(self, url: str, fields: Mapping[str, str], *, basic: Any = None) -> WebAnswer:
        raise NotImplementedError

    def send(self, url: Any, *what: Any, **more: Any) -> Any:
        if isinstance(url, MailServer):
            self.letters.append((url, what[0]))
            return None
        self.sent.append((url, what[0], what[1]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return WebAnswer(status=answer, body=b"")


class Kept:
    """Secrets that a test knows."""

    def __init__(self, **kept: str) -> None:
        self.kept = kept

    def get(self, name: str) -> str:
        if name not in self.kept:
            raise NotFound(f"no secret {name!r}")
        return self.kept[name]


DELIVERY = Delivery(
    id="delivery_1", alert="finding_1", change="opened", receiver="ops", state="waiting", attempts=0, said="",
    made_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def send(
    outside: Outside, delivery: Delivery = DELIVERY, manifest: Manifest = PROJECT, **kept: str
) -> Outcome:
    secrets: Any = Kept(**kept)
    return Teller(web=outside, mail=outside, secrets=secrets).send(delivery, finding(), manifest, now=NOW)


def test_a_webhook_gets_a_cloud_event_that_its_secret_signs() -> None:
    outside = Outside(204)
    assert send(outside, **{"alerts/ops": "s3cret"}) == Outcome(ok=True, said="HTTP 204")

    ((url, body, headers),) = outside.sent
    event = json.loads(body)
    assert (url, event["id"], event["type"], event["subject"]) == (
        OPS.url,
        "delivery_1",
        "taut.alert.opened",
        "app",
    )
    assert event["data"]["evidence"] == {"climbs": 9}
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"s3cret", text, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    at = datetime.fromtimestamp(1614265330, tz=UTC)
    found = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now=at,
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_another_attempt_may_mend_is_told_from_what_it_does_not() -> None:
    kept = {"alerts/ops": "s"}
    assert send(Outside(500), **kept).final is False
    assert send(Outside(Unavailable("it is down")), **kept).final is False
    assert send(Outside(410), **kept).final
    assert send(Outside(Denied("169.254.169.254")), **kept).final
    assert "secret put" in send(Outside(200)).said
    assert send(Outside(200), msgspec.structs.replace(DELIVERY, receiver="gone"), **kept).final


def test_a_letter_says_what_was_seen_and_how_it_ends() -> None:
    outside = Outside()
    assert send(outside, msgspec.structs.replace(DELIVERY, receiver="team")).ok
    ((server, letter),) = outside.letters
    assert (server.url, letter.to, letter.subject) == (
        TEAM.url,
        ("a@example.org",),
        "[taut] warning: abuse.inversion app opened",
    )
    assert "climbs: 9" in letter.text
    assert "It ends with: rest." in letter.text


class Telling:
    """The story of one delivery, on a clock that a test moves."""

    def __init__(self, platform: Platform, *outcomes: Outcome) -> None:
        self.clock, self.deliveries = ManualClock(), platform.alarms.deliveries
        self.outcomes = list(outcomes)
        with platform.records.begin() as tx:
            self.delivery = self.deliveries.add(tx, alert="finding_1", change="opened", receiver="ops")
        rooms: Any = SimpleNamespace(alarms=SimpleNamespace(deliveries=self.deliveries, attempt=self.attempt))
        self.engine = JournalStories(
            platform.records,
            {"tell": lambda story, given: tell(rooms, story, msgspec.convert(given, Tell))},
            clock=self.clock, ids=SequenceIds(), random=SeededRandom(),
        )  # fmt: skip
        self.id = self.engine.start("tell", {"delivery": self.delivery}, key=self.delivery)

    def attempt(self, delivery: str) -> Outcome:
        assert delivery == self.delivery
        return self.outcomes.pop(0)

    def after(self, pause: timedelta) -> str:
        """Return the delivery's state after a pause."""
        self.clock.advance(pause)
        self.engine.work(until_idle=True)
        (found,) = self.deliveries.list()
        return f"{found.state} {found.attempts}"


def test_a_receiver_that_is_down_is_told_when_it_is_back(platform: Platform) -> None:
    down = Outcome(ok=False, said="HTTP 503")
    story = Telling(platform, down, down, Outcome(ok=True, said="HTTP 200"))
    assert story.after(timedelta(0)) == "waiting 1"
    assert story.after(timedelta(0)) == "waiting 1"
    assert story.after(PAUSES[0]) == "waiting 2"
    assert story.after(PAUSES[1]) == "delivered 3"
    assert story.engine.status(story.id).state is StoryState.DONE


def test_a_receiver_that_stays_down_is_given_up_where_people_see_it(platform: Platform) -> None:
    down = Outcome(ok=False, said="HTTP 503")
    story = Telling(platform, *[down] * (len(PAUSES) + 1))
    states = [story.after(pause) for pause in (timedelta(0), *PAUSES)]
    assert states[-1] == f"dead {len(PAUSES) + 1}"
    (leaf,) = platform.ledger.show(kind="delivery.given_up")
    assert leaf.body["said"] == "HTTP 503"

    refused = Telling(platform, Outcome(ok=False, final=True, said="denied"))
    refused.engine.work(until_idle=True)
    assert [one.state for one in platform.alarms.deliveries.list(state="dead")] == ["dead", "dead"]
