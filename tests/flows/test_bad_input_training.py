"""Training functions that fail in every way: the run says how, and no version comes of it."""

from __future__ import annotations

import time

import pytest
from installation import Installation

from taut.entrypoints.templates import PROJECT

MODELS = """

def bad(name, **terms):
    return taut.model(
        name, dataset=orders, request=["items", "distance_km"], label="late", label_at="arrived_at",
        split=taut.by_time(test="20d", gap="1d"), gates=[taut.metric("auc", minimum=0.2)],
        **{"resources": taut.Resources(cpu=1, memory="1GiB", timeout="60s"), **terms},
    )


def line():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def fitted(ctx):
    return line().fit(ctx.train.select("items", "distance_km"), ctx.train["late"])


@bad("raises")
def raises(ctx):
    raise ValueError("the moon is too high")


@bad("exits")
def exits(ctx):
    import os

    os._exit(0)


@bad("dies")
def dies(ctx):
    import os, signal

    os.kill(os.getpid(), signal.SIGSEGV)


@bad("hangs", resources=taut.Resources(cpu=1, memory="1GiB", timeout="3s"))
def hangs(ctx):
    import signal, time

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


@bad("eats", resources=taut.Resources(cpu=1, memory="700MiB", timeout="60s"))
def eats(ctx):
    kept = []
    while True:
        kept.append(bytearray(64 * 2**20))
        for at in range(0, len(kept[-1]), 4096):
            kept[-1][at] = 1


@bad("talks")
def talks(ctx):
    for _ in range(200):
        print("x" * 100_000)
    raise RuntimeError("out of breath")


@bad("returns_nothing")
def returns_nothing(ctx):
    return None


@bad("returns_text")
def returns_text(ctx):
    return taut.Trained("a model", inputs=["items", "distance_km"], output="probability")


@bad("returns_bytes")
def returns_bytes(ctx):
    return taut.Trained(b"no onnx at all", inputs=["items", "distance_km"], output="probability")


@bad("knows_the_answer")
def knows_the_answer(ctx):
    return taut.Trained(fitted(ctx), inputs=["items", "late"], output="probability")


@bad("not_a_number")
def not_a_number(ctx):
    model = fitted(ctx)
    model.coef_[:] = float("nan")
    return taut.Trained(model, inputs=["items", "distance_km"], output="probability")


@bad("boasts")
def boasts(ctx):
    return taut.Trained(fitted(ctx), inputs=["items", "distance_km"], output="probability", metrics={"auc": 0.999})


@bad("reads_secrets")
def reads_secrets(ctx):
    import pathlib

    return taut.Trained(pathlib.Path(ctx.params["key"]).read_bytes(), inputs=["items"], output="probability")


class Wicked:
    def __reduce__(self):
        import os

        return os.system, ("touch " + PWNED,)

    def predict_proba(self, rows):
        return [[0.5, 0.5] for _ in rows]


PWNED = "/dev/null"


@bad("asks_for_pickle")
def asks_for_pickle(ctx):
    return taut.Trained(Wicked(), inputs=["items", "distance_km"], output="probability")
"""

FAILED_RUNS: dict[str, tuple[str, ...]] = {
    # model: words that the error must hold
    "raises": ("ValueError", "the moon is too high"),
    "exits": ("exit",),
    "dies": ("SIGSEGV",),
    "hangs": ("3 s", "timeout"),
    "eats": ("memory", "700 MiB"),
    "talks": ("out of breath",),
    "returns_nothing": ("NoneType", "taut.Trained"),
    "returns_text": ("str",),
    "returns_bytes": ("ONNX",),
    "knows_the_answer": ("late", "label"),
    "not_a_number": (),
    "reads_secrets": ("ermission",),
    "asks_for_pickle": ("Wicked",),
}


@pytest.fixture(scope="module")
def shop(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = released_template.copy_to(tmp_path_factory.mktemp("bad-training") / "shop")
    source = (PROJECT + MODELS).replace(
        '"reads_secrets"', f'"reads_secrets", params={{"key": "{made.home}/keys/root.json"}}'
    )
    made.write("project.py", source)
    made("apply")
    return made


@pytest.mark.parametrize("model", FAILED_RUNS)
def test_a_training_that_fails_says_how_and_leaves_no_version(shop: Installation, model: str) -> None:
    began = time.monotonic()

    told = shop.told("train", model)

    assert told.code == 10, told
    answer = told.document
    assert (answer["verdict"], answer["version"], answer["state"]) == ("reject", "", "failed"), answer
    assert len(answer["error"]) > 10
    assert all(word.lower() in answer["error"].lower() for word in FAILED_RUNS[model]), answer["error"]
    assert "Traceback" not in answer["error"]
    run = shop("run", "show", answer["run"])
    assert run["state"] == "failed"
    assert run["error"] == answer["error"]
    assert shop("model", "list", "--model", model)["versions"] == []
    assert time.monotonic() - began < 600  # one of them would sleep for an hour


def test_a_model_that_boasts_is_registered_and_rejected_by_the_gate(shop: Installation) -> None:
    answer = shop("train", "boasts", expect=10)

    assert (answer["version"], answer["verdict"]) == ("boasts@1", "reject")
    assert any("own_metrics" in reason for reason in answer["reasons"])


def test_after_all_of_it_nothing_is_left_over_and_the_ledger_verifies(shop: Installation) -> None:
    assert shop("data", "show", "orders")["rows"] == 5981
    assert shop("ledger", "verify")["ok"] is True
    assert not list((shop.home / "jobs").glob("*"))
