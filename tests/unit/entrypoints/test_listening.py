"""Ports that the system chooses: three in a row, for the planes beside the first."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from taut.core.errors import Conflict
from taut.entrypoints.listening import PLANES, Address, is_free_beside, listen, listen_anywhere

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_chosen_port_has_free_ones_beside_it() -> None:
    with listen_anywhere("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with ExitStack() as stack:
            for beside in range(port + 1, port + PLANES):
                stack.enter_context(listen(Address("127.0.0.1", beside)))


@pytest.mark.skipif(not OUTGOING.exists(), reason="the system does not say which ports it gives away")
def test_a_chosen_port_is_none_that_a_connection_to_outside_could_take() -> None:
    first = int(OUTGOING.read_text().split()[0])
    for _ in range(20):
        with listen_anywhere("127.0.0.1") as listener:
            assert listener.getsockname()[1] + PLANES <= first


@pytest.mark.parametrize("plane", range(1, PLANES))
def test_a_port_with_a_taken_one_beside_it_is_passed_over(plane: int) -> None:
    with listen_anywhere("127.0.0.1") as listener:
        here = Address("127.0.0.1", listener.getsockname()[1])
        assert is_free_beside(here)
        with listen(Address("127.0.0.1", here.port + plane)):
            assert not is_free_beside(here)


def test_a_named_port_that_is_taken_is_refused_with_what_to_do() -> None:
    with listen(Address("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(Conflict, match=f"port {port} .* choose another with --port"):
            listen(Address("127.0.0.1", port))
