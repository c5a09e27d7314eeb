"""The number of gateways follows the load, by an intent that is on the scale log before; a person's number stands in front."""

from __future__ import annotations

import httpx
from installation import Installation, Json, Up, until

SCALED = """
taut.Autoscale("gateway", minimum=1, maximum=2, concurrency=1e-6, window="2s", cooldown="2s")
"""


def pool(released: Installation) -> Json:
    found: Json = released("fleet", "status")["scaling"][0]
    return found


def events(released: Installation) -> list[Json]:
    found: list[Json] = released("fleet", "events")["events"]
    return found


def _has(released: Installation, n: int) -> bool:
    found = pool(released)
    return (found["n"], found["ready"]) == (n, n)


def _asked(up: Up, token: str, released: Installation, n: int) -> bool:
    """Ask, so that there is load; tell whether there are as many by now."""
    for _ in range(20):
        up.ask(token)
    return _has(released, n)


def test_gateways_follow_the_load_unless_somebody_says_how_many(released: Installation) -> None:
    with released.up() as up:
        token = up.token("app")
        assert "no autoscaler" in released.refused(
            "fleet", "scale", "gateway", "--auto", exit_code=5, code="conflict"
        )
        assert (pool(released)["automatic"], len(events(released))) == (False, 1)

        project = released.folder / "project.py"
        project.write_text(project.read_text() + SCALED)
        released("apply")
        until(lambda: _asked(up, token, released, 2), within_s=90.0, said=up.said)
        intended = events(released)[1]
        assert intended["n"] == 2
        assert "requests under way" in intended["reason"]
        until(lambda: _has(released, 1), within_s=90.0, said=up.said)
        assert [one["n"] for one in events(released)][:3] == [1, 2, 1]
        leaves = released("ledger", "show", "--kind", "fleet.scale-intended")["leaves"]
        assert {leaf["actor"] for leaf in leaves} == {"control", "autoscaler"}
        assert (
            'taut_replicas_wanted{pool="gateway"} 1.0'
            in httpx.get(f"{up.control}/metrics", timeout=60.0).text
        )

        released("fleet", "scale", "gateway", "2")
        until(lambda: _has(released, 2), within_s=90.0, said=up.said)
        assert "--auto" in pool(released)["why"]
        released("fleet", "scale", "gateway", "--auto")
        until(lambda: _has(released, 1), within_s=90.0, said=up.said)
        assert released("fleet", "verify")["unguarded"] == 0
