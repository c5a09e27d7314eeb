"""What an endpoint may declare of its cache, its stand-ins and its second attempts, and what is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from taut.core.errors import InvalidInput
from taut.project.endpoints import simpler_model
from taut.project.freeze import check_references
from taut.project.load import load_project
from taut.project.manifest import FallbackSpec
from taut.project.rules import Cache, cached_answer, default_answer

PROJECT = """
import taut

orders = taut.Dataset(
    "orders", source=taut.files("orders.csv"),
    contract=taut.Contract([
        taut.column("at", "datetime"), taut.column("late", "bool"), taut.column("early", "bool"),
        taut.column("items", "int"), taut.column("weight", "float"),
    ]),
    event_time="at",
)

@taut.model("late", dataset=orders, request=["items", "weight"], label="late", split=taut.by_time(test="30d"), risk="RISK")
def train(ctx: taut.TrainContext) -> taut.Trained: ...

@taut.model("simple", dataset=orders, request=["items"], label="late", split=taut.by_time(test="30d"), risk="low")
def simple(ctx: taut.TrainContext) -> taut.Trained: ...

@taut.model("early", dataset=orders, request=["items"], label="early", split=taut.by_time(test="30d"), risk="low")
def early(ctx: taut.TrainContext) -> taut.Trained: ...

plain = taut.Endpoint("plain", model=simple)
other = taut.Endpoint("other", model=early)
late = taut.Endpoint("late", model=train, MORE)
"""


def declared(folder: Path, more: str, *, risk: str = "medium", **replaced: str) -> Any:
    text = PROJECT.replace("MORE", more).replace("RISK", risk)
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "project.py").write_text(text)
    endpoints = load_project(folder / "project.py").manifest.endpoints
    return next(one for one in endpoints if one.name == "late")


def test_a_profile_is_declared_for_workers_only(tmp_path: Path) -> None:
    assert declared(tmp_path, "workers=2").profile == "latency"
    assert declared(tmp_path, 'profile="throughput"').profile == "throughput"

    with pytest.raises(InvalidInput, match="profile"):
        declared(tmp_path, 'profile="fast"')
    with pytest.raises(InvalidInput, match="only workers make"):
        declared(tmp_path, 'runtime="inline", profile="throughput"')


def test_a_placement_is_declared_by_the_name_of_a_device(tmp_path: Path) -> None:
    assert declared(tmp_path, "workers=2").placement == "auto"
    for placement in ("cpu", "cuda", "cuda:1"):
        assert declared(tmp_path, f"placement={placement!r}").placement == placement

    for wrong in ("'gpu'", "'cuda:'", "'cuda:0:1'", "'CUDA'", "None", "3"):
        with pytest.raises(InvalidInput, match=r"Endpoint 'late': placement is .*: write \"auto\""):
            declared(tmp_path, f"placement={wrong}")
    with pytest.raises(InvalidInput, match="is for workers"):
        declared(tmp_path, 'runtime="inline", placement="cuda"')


def test_spares_are_declared_for_workers_only(tmp_path: Path) -> None:
    assert declared(tmp_path, "workers=2, spares=1").spares == 1

    with pytest.raises(InvalidInput, match="spares wait for workers"):
        declared(tmp_path, 'runtime="inline", spares=1')


@pytest.mark.parametrize("said", ["True", "False", "None"])
def test_whether_a_model_is_kept_in_memory_is_declared_in_three_ways(tmp_path: Path, said: str) -> None:
    assert repr(declared(tmp_path, f"keep_loaded={said}").keep_loaded) == said

    with pytest.raises(InvalidInput, match="keep_loaded is 1: write True, False or None"):
        declared(tmp_path, "keep_loaded=1")


def test_what_is_declared_is_in_the_manifest(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        'cache=taut.Cache(ttl="90s", memory="1MiB", shared=False), workers=2, hedge_after="50ms", '
        'fallback_when=["failed", "shed"], fallback=[taut.previous_version(), taut.simpler_model(plain), '
        'taut.cached_answer(max_stale="1h"), taut.default_answer(probabilities={True: 0.1, False: 0.9})]',
    )

    assert (found.cache.ttl, found.cache.memory, found.cache.shared) == ("90s", "1MiB", False)
    assert (found.hedge_after, found.fallback_when) == ("50ms", ("failed", "shed"))
    assert [one.kind for one in found.fallback] == [
        "previous_version", "simpler_model", "cached_answer", "default_answer",
    ]  # fmt: skip
    assert (found.fallback[1].endpoint, found.fallback[2].max_stale) == ("plain", "1h")
    assert found.fallback[3].probabilities == ((True, 0.1), (False, 0.9))


def test_what_a_caller_may_ask_and_cost_is_declared_by_the_second(tmp_path: Path) -> None:
    found = declared(tmp_path, "quota_per_s=100, model_time_per_s=0.25")
    assert (found.quota_per_s, found.model_time_per_s) == (100, 0.25)
    with pytest.raises(InvalidInput, match="model_time_per_s"):
        declared(tmp_path, "model_time_per_s=-1")


def test_one_stand_in_needs_no_list_and_none_is_the_default(tmp_path: Path) -> None:
    assert [one.kind for one in declared(tmp_path, "fallback=taut.previous_version()").fallback] == [
        "previous_version"
    ]
    bare = declared(tmp_path, "")
    assert (bare.fallback, bare.cache, bare.hedge_after) == ((), None, None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cache(ttl="0s"), "ttl is '0s'"),
        (lambda: Cache(ttl="2d"), "ttl is '2d'"),
        (lambda: Cache(ttl="soon"), "'soon' is not understood"),
        (lambda: Cache(memory="1KiB"), "memory is '1KiB'"),
        (lambda: Cache(shared="yes"), "shared is 'yes'"),  # type: ignore[arg-type]  # refused at run time, too
        (lambda: Cache(tll="60s"), "did you mean 'ttl'?"),  # type: ignore[call-arg]  # refused at run time, too
        (lambda: cached_answer(max_stale="0s"), "nothing would be answered"),
        (lambda: default_answer(), "give value= for a regressor, or probabilities="),
        (lambda: default_answer(value=1.0, probabilities={True: 1.0}), "give value="),
        (lambda: default_answer(value=float("nan")), "value is nan"),
        (lambda: default_answer(probabilities={True: 1.0}), "write {True: 0.2, False: 0.8}"),
        (lambda: default_answer(probabilities=[0.5, 0.5]), "write {True: 0.2, False: 0.8}"),  # type: ignore[arg-type]  # refused at run time, too
        (lambda: default_answer(probabilities={True: 0.5, False: 0.4}), "sum to 0.9"),
        (lambda: default_answer(probabilities={True: 1.5, False: -0.5}), "probability of True"),
        (lambda: default_answer(probabilities={0.5: 0.5, 1.5: 0.5}), "0.5 is no class"),  # type: ignore[dict-item]  # refused at run time, too
        (lambda: simpler_model("plain"), "'plain' is no endpoint"),  # type: ignore[arg-type]  # refused at run time, too
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_words(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()

    assert said in caught.value.message


@pytest.mark.parametrize(
    ("more", "risk", "said"),
    [
        ('cache="60s"', "low", 'write taut.Cache(ttl="60s")'),
        ('fallback="previous_version"', "low", "write taut.previous_version()"),
        ('fallback_when=["always"]', "low", "fallback_when is 'always'"),
        ('hedge_after="50ms"', "low", "give it workers=2"),
        ('hedge_after="50ms", workers=2, runtime="inline"', "low", "give it workers=2"),
        ("fallback=taut.simpler_model(other)", "low", "predicts 'early', not 'late'"),
        ("fallback=taut.simpler_model(plain)", "high", "a model of high risk is stood in for by such a one only"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_project_is_refused_in_words(
    tmp_path: Path, more: str, risk: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        declared(tmp_path, more, risk=risk)

    assert said in caught.value.message


def test_a_simpler_model_that_needs_more_than_requests_carry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="whose model needs request column 'weight'"):
        declared(
            tmp_path,
            "fallback=taut.simpler_model(plain)",
            **{
                'request=["items", "weight"]': 'request=["ITEMS"]',
                'request=["items"]': 'request=["items", "weight"]',
                'request=["ITEMS"]': 'request=["items"]',
            },
        )


def test_an_endpoint_cannot_stand_in_for_itself(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT.replace("MORE", "").replace("RISK", "low"))
    manifest = load_project(tmp_path / "project.py").manifest
    own = tuple(
        replace(one, fallback=(FallbackSpec(kind="simpler_model", endpoint=one.name),))
        for one in manifest.endpoints
    )

    assert (
        len([said for *_, said in check_references(replace(manifest, endpoints=own)) if "itself" in said])
        == 3
    )
