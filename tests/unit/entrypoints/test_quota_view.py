"""`taut quota`: what is lent, to whom, and who asks for it."""

from __future__ import annotations

import pytest

from taut.core.errors import Exhausted
from taut.entrypoints.quota_view import picture, show
from taut.trust.quota import Leases, Limit, Quota, digest_limits

LIMITS = {"delay": Limit(rate_per_s=10.0, burst=2.0)}


def test_the_picture_names_limits_leases_and_who_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    leases = Leases(grantor="c", now_s=0.0)
    leases.expect(2, limits=digest_limits(LIMITS))
    quota = Quota(LIMITS)
    lease = leases.hear("gateway-0#7", quota.claim(0.0), 0.0)
    assert lease is not None
    quota.hear(lease, 0.0)
    for _ in range(20):
        try:
            quota.take(("delay", "alice"), 1.0, 0.5)
        except Exhausted:
            continue
    leases.hear("gateway-0#7", quota.claim(1.0), 1.0)

    found = picture(LIMITS, [(one, one.most(None, 1.0), 0.0) for one in leases.holders(1.0)], trouble="")
    show(found)

    assert found["gateways"] == [{"gateway": "gateway-0", "share": 0.5, "silent_s": 0.0}]
    [key] = found["keys"]
    assert (key["endpoint"], key["principal"], key["short"]) == ("delay", "alice", True)
    assert key["asked_per_s"] == pytest.approx(20.0)
    said = capsys.readouterr().out
    assert "50.0%" in said
    assert "alice" in said
