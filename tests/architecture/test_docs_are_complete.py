"""Docs are tested: every capability has a state with its proof, every error code and link is real."""

from __future__ import annotations

import re
from pathlib import Path

from taut.core import errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STATES = ("works", "partly", "not yet")

# The capabilities that PRODUCT.md names: how many ids each area has.
AREAS = {
    "GATE": 4, "DATA": 11, "FEAT": 4, "TRAIN": 9, "REG": 6, "REL": 6, "SERVE": 16, "LLM": 11, "SEC": 14,
    "ELASTIC": 9, "OBS": 8, "COST": 4, "GOV": 5, "DR": 5, "PLAT": 14,
}  # fmt: skip


def rows() -> dict[str, tuple[str, str]]:
    table = re.findall(
        r"^\| ([A-Z]+-\d+) \| [^|]* \| \*?([a-z ]+)\*? \| ([^|]*) \|$",
        (DOCS / "features.md").read_text(),
        re.M,
    )
    assert len({capability for capability, _, _ in table}) == len(table), "a capability is listed twice"
    return {capability: (state, proof.strip()) for capability, state, proof in table}


def test_every_capability_has_a_state_and_what_shows_it_or_what_is_missing() -> None:
    wanted = {f"{area}-{n}" for area, count in AREAS.items() for n in range(1, count + 1)}

    assert set(rows()) == wanted
    assert {state for state, _ in rows().values()} <= set(STATES)
    assert not [
        capability for capability, (state, proof) in rows().items() if state != "not yet" and not proof
    ]


def test_what_a_capability_names_as_its_proof_exists() -> None:
    missing = [
        (capability, path)
        for capability, (_, proof) in rows().items()
        for path in re.findall(r"`((?:tests|benchmarks|docs|src)/[^`: ]+)", proof)
        if not (ROOT / path).exists()
    ]

    assert not missing


def test_every_error_code_is_documented() -> None:
    page = (DOCS / "reference/errors.md").read_text()
    codes = {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.TautError)
    } - {"error"}

    assert not [code for code in codes if f"`{code}`" not in page]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")

    assert not broken
