"""Who is told of alerts and who is contained because of them is declared, and what makes no sense is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.core.errors import InvalidInput
from taut.project.load import load_project
from taut.project.manifest import ContainSpec, Manifest, ReceiverSpec

PROJECT = """
import taut

orders = taut.Dataset(
    "orders", source=taut.files("orders.csv"),
    contract=taut.Contract([taut.column("at", "datetime"), taut.column("late", "bool"), taut.column("items", "int")]),
    event_time="at",
)

@taut.model("late", dataset=orders, request=["items"], label="late", split=taut.by_time(test="30d"))
def train(ctx: taut.TrainContext) -> taut.Trained: ...

late = taut.Endpoint("late", model=train)
"""
WEBHOOK = 'taut.Webhook("ops", url="https://hooks.example.org/x", secret="alerts/ops"{})'
EMAIL = (
    'taut.Email("team", to=["a@example.org"], sender="taut@example.org", server="smtps://mail.example.org"{})'
)
CONTAIN = 'taut.Contain("crowding", on="share", action="throttle", per_s=5{})'


def declared(folder: Path, *lines: str) -> Manifest:
    (folder / "project.py").write_text("\n".join([PROJECT, *lines]))
    return load_project(folder / "project.py").manifest


def test_receivers_and_containments_are_part_of_the_project(tmp_path: Path) -> None:
    made = declared(
        tmp_path, WEBHOOK.format(""), EMAIL.format(', user="taut", secret="mail", severity="critical", kinds="abuse"'),
        CONTAIN.format(', severity="warning", lasts="10m"'),
        'taut.Contain("harmless", on="abuse.inversion", action="quarantine", allow=[late])',
    )  # fmt: skip

    assert made.receivers == (
        ReceiverSpec(name="ops", kind="webhook", url="https://hooks.example.org/x", secret="alerts/ops"),
        ReceiverSpec(
            name="team", kind="email", url="smtps://mail.example.org", to=("a@example.org",), sender="taut@example.org",
            user="taut", secret="mail", severity="critical", kinds=("abuse",),
        ),
    )  # fmt: skip
    assert made.containments == (
        ContainSpec(
            name="crowding", on="share", action="throttle", severity="warning", lasts="10m", per_s=5.0
        ),
        ContainSpec(name="harmless", on="abuse.inversion", action="quarantine", allow=("late",)),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (WEBHOOK.format(', severity="loud"'), "severity"),
        (WEBHOOK.format(', kinds=["a b"]'), "no kind"),
        (WEBHOOK.replace("https://hooks", "ftp://hooks").format(""), "https://HOST"),
        (WEBHOOK.replace("https://hooks", "https://me:secret@hooks").format(""), "without a user"),
        (WEBHOOK.format("") + "\n" + EMAIL.replace("team", "ops").format(""), "declared twice"),
        (EMAIL.format(', user="taut"'), "go together"),
        (EMAIL.replace("a@example.org", "a@b\\r\\nBcc: c@d").format(""), "no address of mail"),
        (EMAIL.replace("smtps:", "https:").format(""), "smtps://HOST"),
        (CONTAIN.replace("per_s=5", "lasts='1h'").format(""), "per_s"),
        (CONTAIN.format(", allow=[late]"), "allow"),
        (CONTAIN.replace("throttle", "shout").format(""), "action"),
        (CONTAIN.format(', lasts="a while"'), "lasts"),
        (CONTAIN.format(", action_=1"), "no argument"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        declared(tmp_path, line)
