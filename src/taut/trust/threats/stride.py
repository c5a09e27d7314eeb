"""What threatens a map's elements and flows, category by category, and what stands against it.

Source: Shostack, Threat Modeling, 2014, chapter 3: STRIDE per element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from taut.trust.threats.values import Element, Flow, Kind, Map, Setting, Zone

State = Literal["stopped", "visible", "accepted", "open"]
"""stopped: refused. visible: cannot be refused, but is seen. accepted: known, and left so. open: somebody must decide."""

_WORDS: Final = {
    "S": "spoofing", "T": "tampering", "R": "repudiation", "I": "disclosure", "D": "denial of service", "E": "elevation",
}  # fmt: skip


class Threat(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what could happen to `at`, what stands against it, and a test that shows it (a path of the repository)."""

    at: str
    category: str
    answer: str
    state: State
    shown_by: str = ""


def threats_of(drawn: Map, setting: Setting) -> tuple[Threat, ...]:
    """Return the threats of every element that the project talks to and of every flow that crosses a boundary."""
    found = [threat for element in drawn.elements for threat in _element(element, setting)]
    found += [threat for flow in drawn.flows if drawn.crosses(flow) for threat in _flow(flow, setting)]
    return tuple(found)


def _line(at: str, letter: str, answer: str, shown_by: str = "", state: State = "stopped") -> Threat:
    return Threat(at=at, category=_WORDS[letter], answer=answer, state=state, shown_by=shown_by)


def _element(element: Element, setting: Setting) -> Iterator[Threat]:
    match element.kind:
        case Kind.PARTY:
            yield from _party(element)
        case Kind.PROCESS if element.zone is Zone.CONFINED:
            yield from _confined(element, setting)
        case Kind.PROCESS:
            yield from _process(element)
        case Kind.STORE:
            yield from _store(element, setting)


def _party(element: Element) -> Iterator[Threat]:
    if element.id.startswith("source-"):
        yield _line(element.name, "S", "only what the plan declares is read; files by digest, links followed", "tests/security/test_attack_sources.py")  # fmt: skip
        yield _line(element.name, "T", "contract, quarantine and the data gate; what a valid lie says is learned", "tests/unit/lifecycle/data/test_data_contract.py", "visible")  # fmt: skip
        return
    if element.id in ("collector", "copy", "provider") or element.id.startswith("receiver-"):
        yield _line(
            element.name, "S", "an address that the installation's owner, or the plan, set", "", "accepted"
        )
        return
    if element.id == "owner":
        yield _line(element.name, "R", "he holds the keys: checkpoints copied elsewhere show a ledger that was cut", "tests/security/test_ledger_tampering.py", "visible")  # fmt: skip
        return
    yield _line(element.name, "S", "tokens, keys and sessions; nothing ambient", "tests/security/test_identity_bearers.py")  # fmt: skip
    yield _line(element.name, "R", "acts in the ledger, requests in the prediction log, sealed", "tests/security/test_ledger_tampering.py")  # fmt: skip


def _process(element: Element) -> Iterator[Threat]:
    at = element.name
    yield _line(at, "S", "its sockets are the owner's alone; snapshots are signed", "tests/security/test_attack_machine.py")  # fmt: skip
    yield _line(at, "T", "malformed, smuggled and endless requests are refused by bounds", "tests/security/test_hostile_http.py")  # fmt: skip
    yield _line(at, "R", "each effect commits with its leaf", "tests/security/test_ledger_concurrency.py")
    yield _line(at, "I", "nothing secret in files, logs, traces, errors or command lines", "tests/flows/test_nothing_secret_is_written.py")  # fmt: skip
    yield _line(at, "D", "quotas, deadlines, shedding, bounds of a connection", "tests/security/test_slow_and_crowded.py")  # fmt: skip
    yield _line(at, "E", "every operation has an action; policy decides before it runs", "tests/security/test_policy_escalation.py")  # fmt: skip


def _confined(element: Element, setting: Setting) -> Iterator[Threat]:
    at = element.name
    yield _line(at, "T", "its results are checked for form and measured again", "tests/security/test_attack_jobs.py")  # fmt: skip
    yield _line(at, "I", "no network, no keys, its own files only", "tests/security/test_code_in_workers.py")
    yield _line(at, "D", "limits of time, memory, output and processes", "tests/security/test_job_death.py")
    if setting.sandbox:
        yield _line(at, "E", f"does not run without {setting.sandbox}", "tests/security/test_job_without_namespaces.py")  # fmt: skip
    else:
        yield _line(at, "E", "confined as far as this kernel can; each run says how far. TAUT_SANDBOX demands it", "tests/security/test_job_without_namespaces.py", "open")  # fmt: skip


def _store(element: Element, setting: Setting) -> Iterator[Threat]:
    at = element.name
    match element.id:
        case "records":
            yield _line(at, "T", "the ledger tells what was decided; states in tables are not signed", "tests/security/test_ledger_tampering.py", "visible")  # fmt: skip
            yield _line(at, "I", "personal values are sealed; the rest is readable to who has the database", "tests/security/test_storage_sealing.py", "accepted")  # fmt: skip
        case "blobs":
            yield _line(at, "T", "named by digest, verified at each read", "tests/security/test_storage_local.py")  # fmt: skip
            said = "all is encrypted" if setting.sealed else "personal fields are sealed; the rest is not"
            yield _line(at, "I", said, "tests/security/test_storage_sealing.py", "stopped" if setting.sealed else "accepted")  # fmt: skip
        case "keys":
            own = setting.keys == "file"
            said = "encrypted files under a passphrase or permissions" if own else "never leave their holder"
            yield _line(at, "I", said, "tests/conformance/test_keys.py", "accepted" if own else "stopped")
        case _:
            yield _line(at, "T", "the owner's files; segments and snapshots are sealed or signed", "tests/security/test_attack_machine.py")  # fmt: skip
            yield _line(at, "I", "the owner's files, whatever the umask", "tests/security/test_attack_machine.py")  # fmt: skip
    yield _line(
        at, "D", "a full disk is an error that says so; nothing half written", "tests/flows/test_bad_input_disk.py"
    )  # fmt: skip


def _flow(flow: Flow, setting: Setting) -> Iterator[Threat]:
    if flow.way.startswith(("Unix socket", "files of")):
        yield _line(flow.name, "I", f"{flow.way}; {flow.guard}", "tests/security/test_attack_machine.py")
        return
    plain = flow.way == "http" or (not setting.tls and flow.way == "HTTP on loopback")
    if flow.way == "HTTP on loopback":
        yield _line(flow.name, "I", "does not leave the machine; another address is refused without TLS", "tests/security/test_tls_refusals.py")  # fmt: skip
    elif plain:
        yield _line(flow.name, "I", f"in the clear to {flow.target}: use https", "", "open")
    elif flow.way.startswith("TLS"):
        yield _line(flow.name, "I", f"{flow.way} alone", "tests/security/test_tls_refusals.py")
    else:
        yield _line(flow.name, "I", f"{flow.way}: {flow.guard}", "", "accepted")
    if flow.personal:
        yield _line(flow.name, "I", f"personal: {', '.join(flow.personal)}; {flow.guard}", "tests/security/test_data_privacy.py", "visible")  # fmt: skip
