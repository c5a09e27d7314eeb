"""`taut model optimise` as its users know it: what gains is judged as a version of its own, what loses is not kept."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crashes import Books, Death, assert_nothing_runs
from installation import ORDER, Installation, Json
from runner import document, run_alone

from taut.core.refs import VersionRef
from taut.lifecycle.training.variants import Figures, Made, Variant, make_variants

pytestmark = pytest.mark.xdist_group("optimise")

TREES = 'HistGradientBoostingClassifier(max_iter=int(ctx.params["trees"]), random_state=ctx.seed),'
NETWORK = """StandardScaler(),
        MLPClassifier((64, 64), max_iter=int(ctx.params["trees"]), tol=0, random_state=ctx.seed),"""
IMPORTS = """    import warnings

    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler
    from sklearn.compose import make_column_transformer
"""


@pytest.fixture(scope="module")
def trained_network(
    released_template: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """The project with a small neural network for its model: `late@2`, and `late@3` that learned next to nothing."""
    shop = released_template.copy_to(tmp_path_factory.mktemp("network") / "shop")
    code = (shop.folder / "project.py").read_text()
    code = code.replace(TREES, NETWORK).replace(
        "    from sklearn.compose import make_column_transformer\n", IMPORTS
    )
    code = code.replace(
        "    model.fit(", '    warnings.simplefilter("ignore")  # it need not converge\n    model.fit('
    )
    shop.write("project.py", code.replace('"trees": 60', '"trees": 12'))
    shop("apply")
    assert shop("train", "late")["version"] == "late@2"
    shop.told("train", "late", "-p", "trees=1")
    return shop


@pytest.fixture
def network(trained_network: Installation, tmp_path: Path) -> Installation:
    return trained_network.copy_to(tmp_path / "shop")


def platform_of(shop: Installation) -> Any:
    """The rooms of an installation that nothing else works in."""
    from taut.entrypoints.client import connect

    return connect(shop.home)


def made_of(rooms: Any, version: str) -> Made:
    info = rooms.registry.show(VersionRef.parse(version))
    return make_variants(
        rooms.training.get(info.candidate.run), info.candidate.files["model.onnx"].digest,
        blobs=rooms.blobs, tables=rooms.tables, jobs=rooms.jobs, scratch=rooms.scratch,
    )  # fmt: skip


def judged(rooms: Any, version: str, variant: Variant, made: Made) -> Any:
    from taut.workflows.optimise import judge_variant

    return judge_variant(rooms, VersionRef.parse(version), variant, made, gain="planted", actor="owner")


def assert_consistent(shop: Installation, told: Json) -> None:
    """Nothing is kept but what gained and passed, and everything that was tried is reported with its figures."""
    assert [tried["name"] for tried in told["variants"]] == ["graph", "int8-dynamic", "int8-static"]
    by_version = {item["version"]: item for item in shop("model", "list")["versions"]}
    for tried in told["variants"]:
        assert tried["reasons"], tried
        assert (tried["figures"] is None) == (tried["outcome"] == "not made")
        assert bool(tried["version"]) == (tried["outcome"] in ("admit", "hold", "reject"))
        if tried["version"]:
            assert (by_version[tried["version"]]["state"] == "rejected") == (tried["outcome"] == "reject")
    assert told["kept"] == [t["version"] for t in told["variants"] if t["outcome"] in ("admit", "hold")]


def test_trees_have_nothing_to_quantise_and_nothing_is_registered_for_it(released: Installation) -> None:
    told = released("model", "optimise", "late@1")

    assert_consistent(released, told)
    assert told["version"] == "late@1"
    for tried in told["variants"][1:]:
        assert (tried["outcome"], "nothing to quantise" in tried["note"]) == ("not made", True)


def assert_no_edge(shop: Installation, variant: str) -> None:
    """A variant that nobody approved does not leave the house, and is no reason to export another in silence."""
    words = ("model", "export", "late@2", "--edge", str(shop.folder / "early.pyz"), "--features-in-request")
    shop.refused(*words, "--variant", "int8-dynamic", exit_code=4, code="denied")
    shop("model", "approve", "late@2")
    told = shop(*words)
    assert (told["version"], told["variant"]) == ("late@2", "original")
    assert variant in told["note"]


def assert_edge(shop: Installation, variant: str, name: str) -> None:
    """The kept variant is what goes to the edge, unless the original is asked for; it answers there."""
    words = ("model", "export", "late@2", "--features-in-request", "--edge")
    small = shop(*words, str(shop.folder / "small.pyz"))
    whole = shop(*words, str(shop.folder / "whole.pyz"), "--variant", "original")
    assert (small["version"], small["origin"], small["variant"]) == (variant, "late@2", name)
    assert (whole["version"], whole["variant"]) == ("late@2", "original")
    assert small["size_bytes"] < whole["size_bytes"]
    data = json.dumps({**ORDER, "waiting": 40})
    answers = [document(run_alone(Path(told["file"]), "predict", "--data", data)) for told in (small, whole)]
    probabilities = [answer["predictions"][0]["probability"] for answer in answers]
    assert abs(probabilities[0] - probabilities[1]) < 0.05


def test_a_network_is_quantised_and_what_is_kept_says_where_it_is_from(network: Installation) -> None:
    told = network("model", "optimise", "late@2")

    assert_consistent(network, told)
    for tried in told["variants"][1:]:
        assert tried["figures"]["size_bytes"] < 0.7 * told["original"]["size_bytes"]
        assert set(tried["figures"]["metrics"]) == set(told["original"]["metrics"])
    again = network("model", "optimise", "late@2")
    numbers = {tried["name"]: tried["version"] for tried in told["variants"] if tried["version"]}
    for tried in again["variants"]:
        if tried["name"] in numbers and tried["version"]:
            assert tried["version"] == numbers[tried["name"]]  # the same variant is no second version


def test_a_faithful_variant_is_admitted_waits_for_approval_and_is_released(network: Installation) -> None:
    with platform_of(network) as client:
        rooms = client.transport.platform
        made = made_of(rooms, "late@2")
        dynamic = made.variants[1]
        told = judged(rooms, "late@2", dynamic, made)
        assert judged(rooms, "late@2", dynamic, made) == told

    assert told["verdict"] == "admit", told
    shown = network("model", "show", told["version"])
    assert shown["state"] == "candidate"
    assert_no_edge(network, told["version"])
    assert shown["card"]["variant"]["origin"] == "late@2"
    assert "Made from **late@2**" in shown["card_markdown"]
    assert {"quality", "parity", "auc minimum"} <= {check["name"] for check in shown["card"]["checks"]}
    network("model", "approve", told["version"])
    assert_edge(network, told["version"], "int8-dynamic")
    assert network("release", "start", "late", told["version"])["state"] == "live"
    why = str(network("why", f"model:{told['version']}"))
    assert "optimise" in why
    assert "model:late@2" in why
    assert network("model", "verify", told["version"])["ok"]
    network.refused("model", "optimise", told["version"], exit_code=5, code="conflict")


def test_a_variant_that_is_worse_than_its_original_is_refused_with_its_figures(network: Installation) -> None:
    """Planted: the poor model stands in for a variant of the good one; it even agrees with what itself said."""
    with platform_of(network) as client:
        rooms = client.transport.platform
        run = rooms.training.list(model="late", limit=1)[0]
        model, parity = run.artifact("model.onnx"), run.artifact("parity.parquet")
        latency = {1: 1.0, 32: 1.0}
        poor = Figures(size_bytes=model.size_bytes, latency_us=latency, metrics=run.report.metrics)
        variant = Variant(
            name="int8-static", note="planted", figures=poor, model=model.digest, parity=parity.digest
        )
        before = rooms.registry.show(VersionRef.parse("late@2")).candidate.metrics
        original = Figures(size_bytes=1, latency_us=latency, metrics=before)
        made = Made(
            original=original, variants=(variant,), noise={}, rounds={}, holdout_rows=1, calibration_rows=1,
            environment=run.report.environment,
        )  # fmt: skip
        told = judged(rooms, "late@2", variant, made)

    assert told["verdict"] == "reject"
    reason = next(reason for reason in told["reasons"] if reason.startswith("quality"))
    assert "against late@2" in reason
    assert f"logloss is {run.report.metrics['logloss']:.4f}" in reason
    assert not any(reason.startswith("parity") for reason in told["reasons"])
    assert network("model", "show", told["version"])["state"] == "rejected"


def test_a_variant_that_serving_answers_otherwise_than_its_job_did_is_refused(network: Installation) -> None:
    """Planted: the answers of the original in place of the variant's own."""
    with platform_of(network) as client:
        rooms = client.transport.platform
        made = made_of(rooms, "late@2")
        run = rooms.training.get(rooms.registry.show(VersionRef.parse("late@2")).candidate.run)
        lying = msgspec.structs.replace(made.variants[1], parity=run.artifact("parity.parquet").digest)
        told = judged(rooms, "late@2", lying, made)

    assert told["verdict"] == "reject"
    assert any(reason.startswith("parity") for reason in told["reasons"])


def test_a_variant_that_a_person_rejected_is_not_kept_another_time(network: Installation) -> None:
    with platform_of(network) as client:
        rooms = client.transport.platform
        made = made_of(rooms, "late@2")
        version = judged(rooms, "late@2", made.variants[1], made)["version"]
        network_told = client.call("model.reject", {"version": version, "reason": "no"})
        told = judged(rooms, "late@2", made.variants[1], made)

    assert network_told["state"] == "rejected"
    assert (told["version"], told["verdict"]) == (version, "reject")
    assert told["reasons"] == [f"{version} was rejected by a person before"]


def test_what_is_unknown_or_did_not_pass_is_not_optimised(network: Installation) -> None:
    network.refused("model", "optimise", "late@77", exit_code=3, code="not_found")
    network("model", "reject", "late@2", "--reason", "no")
    said = network.refused("model", "optimise", "late@2", exit_code=5, code="conflict")

    assert "late@2 is rejected" in said


def test_killed_after_the_variants_were_made_the_story_ends_with_the_next_command(
    network: Installation, tmp_path: Path
) -> None:
    death, books = Death(tmp_path / "death"), Books(network)
    dying = Installation(network.folder, environ={**os.environ, **death.environ})
    death.arm("command", 20)

    told = dying.process("model", "optimise", "late@2")

    assert (told.code, death.came) == (-signal.SIGKILL, True), (told, death.passed)
    assert_nothing_runs(network)
    assert_consistent(network, network("model", "optimise", "late@2"))
    assert set(books.stories().values()) <= {"done"}
    assert books.faults() == []
    books.proved()
