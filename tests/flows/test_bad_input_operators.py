"""Two operators at once, two installations on one port or home: one wins, the other is told, nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from installation import Installation, Told, Up, assert_clear, free_ports, until
from test_bad_input_data import file_of, rows

from taut.entrypoints.templates import PROJECT

pytestmark = pytest.mark.xdist_group("operators")

OPERATORS = 4


@pytest.fixture(scope="module")
def up(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    shop = released_template.copy_to(tmp_path_factory.mktemp("operators") / "shop")
    shop("apply")  # sources that the API is given are beside the project file, which now lies elsewhere
    with shop.up() as running:
        yield running


class Operator:
    """Somebody who calls control's API with a token of his own."""

    def __init__(self, up: Up, name: str, role: str = "admin") -> None:
        self.name = name
        token = up.installation("token", "create", "-p", name, "-r", role, "--enrol", "service")["token"]
        self._http = httpx.Client(
            base_url=f"{up.control}/api/v1", headers={"authorization": f"Bearer {token}"}, timeout=120.0
        )

    def __call__(self, operation: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        answer = self._http.post(operation.replace(".", "/"), json=fields)
        return answer.status_code, answer.json()

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def operators(up: Up) -> Iterator[list[Operator]]:
    made = [Operator(up, f"operator-{number}") for number in range(OPERATORS)]
    yield made
    for operator in made:
        operator.close()


def at_once(operators: list[Operator], do: Callable[[Operator], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(operators)) as pool:
        return list(pool.map(do, operators))


def leaves(shop: Installation, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop("ledger", "show", "--kind", kind, "--limit", "1000")["leaves"]
    return found


def test_approvals_at_once_count_each_person_once(up: Up, operators: list[Operator]) -> None:
    shop = up.installation
    assert shop("train", "late")["verdict"] == "admit"
    person = Operator(up, "approver", role="approver")

    twice = at_once([person] * OPERATORS, lambda one: one("model.approve", version="late@2", reason="fine"))
    person.close()

    assert sorted(status for status, _ in twice) == [200] + [409] * (OPERATORS - 1), twice
    shown = shop("model", "show", "late@2")
    assert shown["state"] == "approved"
    assert len(shown["approvals"]) == 1


def test_ingests_at_once_of_one_batch_make_one_snapshot_and_of_several_make_each_one(
    up: Up, operators: list[Operator]
) -> None:
    shop = up.installation
    shop.write("data/orders-9.csv", file_of(rows(100, first=500_000)))
    before = len(leaves(shop, "verdict.data"))

    same = at_once(operators, lambda one: one("data.ingest", dataset="orders", source="data/orders-9.csv"))
    for number in range(OPERATORS):
        shop.write(f"data/own-{number}.csv", file_of(rows(50, first=600_000 + 1000 * number)))
    own = at_once(
        operators, lambda one: one("data.ingest", dataset="orders", source=f"data/own-{one.name[-1]}.csv")
    )

    assert {status for status, _ in same + own} == {200}, same + own
    assert sorted(answer["unchanged"] for _, answer in same) == [False] + [True] * (OPERATORS - 1)
    assert {answer["snapshot"] for _, answer in same} == {"orders@2"}
    assert {answer["snapshot"] for _, answer in own} == {
        f"orders@{3 + number}" for number in range(OPERATORS)
    }
    assert shop("data", "show", "orders")["rows"] == 5981 + 100 + 50 * OPERATORS
    assert len(leaves(shop, "verdict.data")) == before + 1 + OPERATORS


def test_applies_at_once_leave_one_plan_for_each_that_won(up: Up, operators: list[Operator]) -> None:
    shop = up.installation
    before = shop("plan", "history")["plans"]
    requests = []
    for number, operator in enumerate(operators):
        shop.write(
            "project.py", PROJECT.replace("max_bad_fraction=0.02", f"max_bad_fraction=0.0{number + 3}")
        )
        requests.append((operator, json.loads(request_of(shop))))
    base = before[0]["plan"]

    answers = at_once(operators, lambda one: one("plan.apply", base=base, **dict(requests)[one]))

    statuses = [status for status, _ in answers]
    assert sorted(statuses) == [200] + [409] * (OPERATORS - 1), answers
    for status, answer in answers:
        if status == 409:
            assert answer["error"]["code"] == "conflict"
            assert_clear(answer["error"]["message"])
    assert len(shop("plan", "history")["plans"]) == len(before) + 1
    assert len(leaves(shop, "plan.applied")) == len(before) + 1


def request_of(shop: Installation) -> str:
    """What `taut apply` sends, as JSON."""
    import msgspec

    from taut.entrypoints.cli.project import request_of as request

    made = request(shop.folder / "project.py")
    made.pop("allow_removal")
    return msgspec.json.encode(made).decode()


def test_releases_at_once_leave_one_live_and_every_other_is_told(up: Up, operators: list[Operator]) -> None:
    shop = up.installation
    before = len(shop("release", "history", "late")["releases"])

    answers = at_once(operators, lambda one: one("release.start", endpoint="late", version="1"))

    done = [answer for status, answer in answers if status == 200]
    told = [answer["error"] for status, answer in answers if status != 200]
    assert done
    assert all(error["code"] == "conflict" for error in told), told
    releases = shop("release", "history", "late")["releases"]
    assert len(releases) == before + len(done)
    assert [release["state"] for release in releases].count("live") == 1
    assert {release["state"] for release in releases} == {"live", "replaced"}
    assert shop("ledger", "verify")["ok"] is True


def test_a_second_platform_on_the_home_or_the_port_is_refused_by_name(up: Up, released: Installation) -> None:
    home = up.installation.process("up", "--port", str(free_ports()))
    port = released.process("up", "--port", str(up.port))
    control_port = released.process("up", "--port", str(up.port + 1))

    assert (home.code, home.error[0]) == (5, "conflict"), home
    assert str(up.pid("supervisor")) in home.error[1]
    for refused, taken in ((port, up.port), (control_port, up.port + 1)):
        assert (refused.code, refused.error[0]) == (5, "conflict"), refused
        assert f"port {taken}" in refused.error[1]
        assert "--port" in refused.error[1]
    assert up.ask(up.token()).status_code == 200
    assert released("status")["data_plane"] is None


def test_a_platform_whose_control_port_is_taken_says_so_and_goes_on_when_it_is_free(
    released: Installation,
) -> None:
    import socket

    port = free_ports()
    with socket.create_server(("127.0.0.1", port + 1)):
        refused = released.process("up", "--port", str(port))

    assert (refused.code, refused.error[0]) == (5, "conflict"), refused
    assert f"port {port + 1}" in refused.error[1]
    with released.up(port=port) as up:
        assert up.ask(up.token()).status_code == 200


def test_two_commands_at_once_on_a_home_without_a_platform_take_turns_or_are_told(
    released: Installation,
) -> None:
    told: list[Told] = []
    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            released.write(f"data/x-{number}.csv", file_of(rows(50, first=700_000 + 1000 * number)))
        told = list(
            pool.map(
                lambda number: released.process("data", "ingest", "orders", "--from", f"data/x-{number}.csv"),
                range(3),
            )
        )

    assert {one.code for one in told} <= {0, 5}
    done = [one for one in told if one.code == 0]
    assert done
    for one in told:
        if one.code == 5:
            assert "works in" in one.error[1]
    assert released("data", "show", "orders")["rows"] == 5981 + 50 * len(done)
    assert released("ledger", "verify")["ok"] is True


def test_a_command_beside_a_running_platform_goes_through_it(up: Up) -> None:
    until(lambda: up.installation.told("status").code == 0)

    assert up.installation("status")["data_plane"] == up.data
