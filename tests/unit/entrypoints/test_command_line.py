"""The command line answers at once, says what is wrong and what to do, and ends with the code that it means."""

from __future__ import annotations

import json
import os
import py_compile
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.entrypoints import errors, inputs, render, tree_view
from taut.entrypoints.cli import run
from taut.entrypoints.cli.app import build
from taut.entrypoints.cli.arguments import hoist, noun_of
from taut.entrypoints.client import home_lock
from taut.entrypoints.doctor import examine
from taut.entrypoints.operations import operation_table
from taut.entrypoints.templates import sample_data, write_project

SRC = Path(__file__).parents[3] / "src/taut/entrypoints/cli"


def test_global_options_may_stand_anywhere() -> None:
    assert hoist(["data", "list", "--json", "--home", "x"]) == ["--json", "--home", "x", "data", "list"]
    assert hoist(["--home=x", "data", "list"]) == ["--home=x", "data", "list"]
    assert hoist(["predict", "e", "--", "--json"]) == ["predict", "e", "--", "--json"]
    assert hoist(["data", "list", "--home"]) == ["--home", "data", "list"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["data", "--json", "--home", "h", "--limit", "3", "--url=u", "--debug"]), max_size=8
    )
)
def test_moving_global_options_loses_and_invents_nothing(words: list[str]) -> None:
    assert sorted(hoist(words)) == sorted(words)


@pytest.mark.parametrize(
    ("words", "noun"),
    [
        (["--json", "--home", "data", "train", "late"], "train"), (["--url=u", "data", "list"], "data"),
        (["--version", "data"], ""), (["--help"], ""), (["--home"], ""), ([], ""), (["predict", "--", "data"], "predict"),
    ],
)  # fmt: skip
def test_the_noun_is_the_first_word_that_is_no_global_option(words: list[str], noun: str) -> None:
    assert noun_of(words) == noun


def test_the_command_line_of_one_noun_is_that_of_all_and_of_none_but_it() -> None:
    import typer

    def told(command: Any) -> Any:
        below = {name: told(one) for name, one in getattr(command, "commands", {}).items()}
        return command.help, [option.opts for option in command.params], below

    whole: Any = typer.main.get_command(build())

    assert len(whole.commands) > 25
    for noun, command in whole.commands.items():
        alone: Any = typer.main.get_command(build(noun))
        assert list(alone.commands) == [noun]
        assert told(alone.commands[noun]) == told(command)
        assert [option.opts for option in alone.params] == [option.opts for option in whole.params]
    assert list(typer.main.get_command(build("dta")).commands) == list(whole.commands)  # type: ignore[attr-defined]  # a group


def test_every_command_has_help_and_every_noun_a_verb() -> None:
    import typer

    def walk(command: Any, path: str) -> None:
        assert command.help, path
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{path} {name}")

    walk(typer.main.get_command(build()), "taut")


def test_every_operation_that_a_command_calls_is_in_the_table() -> None:
    import re

    called = {
        name
        for path in SRC.glob("*.py")
        for name in re.findall(r'(?:act|ask|show_only)\(\s*"([a-z.]+)"', path.read_text())
    }
    known = {operation.name for operation in operation_table()}

    assert len(called) > 30
    assert called <= known


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dta"], "Did you mean 'data'"),
        (["data", "shwo"], "Did you mean 'show'"),
        (["data", "show"], "Missing argument"),
        (["data", "show", "x", "--versoin", "1"], "--version"),
        (["train"], "taut train --help"),
    ],
)
def test_a_misspelt_command_is_invalid_input_with_the_nearest(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.startswith("invalid_input: ")
    assert told.out == ""


def test_with_json_an_error_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "dta"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["code"] == "invalid_input"


def test_help_costs_little_and_imports_nothing_slow() -> None:
    code = "import sys; from taut.entrypoints.cli import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]

    for slow in (
        "polars",
        "sqlalchemy",
        "onnxruntime",
        "sklearn",
        "starlette",
        "pydantic",
        "msgspec",
        "httpx",
        "rich",
        "alembic",
    ):
        assert f"'{slow}'" not in loaded, slow


def test_importing_the_package_costs_less_than_60_ms() -> None:
    code = "import time; t = time.process_time(); import taut; print(time.process_time() - t)"
    taken = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]

    assert min(taken) < 0.060  # of a processor that others slow down


def test_a_gate_that_does_not_admit_has_an_exit_code_of_its_own() -> None:
    assert errors.exit_code_of_result({"verdict": "admit"}) == 0
    assert errors.exit_code_of_result({"verdict": "reject"}) == 10
    assert errors.exit_code_of_result({"verdict": {"decision": "hold"}}) == 11
    assert errors.exit_code_of_result({"rejected": True, "verdict": None}) == 10
    assert errors.exit_code_of_result({"datasets": []}) == 0


def test_what_people_type_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"a": 1}]')

    assert inputs.read_json(f"@{tmp_path}/rows.json") == [{"a": 1}]
    assert inputs.instances({"instances": [{"a": 1}]}) == [{"a": 1}]
    assert inputs.instances({"a": 1}) == [{"a": 1}]
    assert inputs.parameters(["depth=8", "name=x", "rate=0.5"]) == {"depth": 8, "name": "x", "rate": 0.5}
    with pytest.raises(NotFound, match="after @"):
        inputs.read_json("@/nowhere.json")
    with pytest.raises(InvalidInput, match="is no JSON"):
        inputs.read_json("{carrier: UA}")
    with pytest.raises(InvalidInput, match="is no instance"):
        inputs.instances([1, 2])
    with pytest.raises(InvalidInput, match="name=value"):
        inputs.parameters(["depth"])


def test_what_data_says_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(("value",), [["\x1b[2J\x07wiped"]])

    assert "\x1b" not in capsys.readouterr().out


def test_a_tree_is_drawn_with_digests_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    source = {"ref": "source:sha256:" + "a" * 64 + "#x.csv"}
    step = {"activity": "data.read", "at": "2026-01-01T00:00:00Z", "inputs": [source], "facts": {"rows": 3}}
    tree_view.why({"tree": {"ref": "snapshot:orders@1", "made_by": [step]}})

    assert capsys.readouterr().out.splitlines() == [
        "snapshot:orders@1",
        "└─ data.read at 2026-01-01 00:00:00  [rows=3]",
        "   └─ source:x.csv (sha256:aaaaaaaaaaaa…)",
    ]


def test_a_tree_says_whether_what_it_shows_once_stands_above_or_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = {"ref": "model:m@1", "repeated": True}
    approval = {
        "ref": "approval:a",
        "made_by": [{"activity": "approve", "at": "2026-01-01T00:00:00Z", "inputs": [again]}],
    }
    release = {
        "activity": "release",
        "at": "2026-01-02T00:00:00Z",
        "inputs": [approval, {"ref": "model:m@1"}, again],
    }

    tree_view.why({"tree": {"ref": "release:r", "made_by": [release]}})

    told = [
        line.rpartition("model:m@1")[2]
        for line in capsys.readouterr().out.splitlines()
        if "model:m@1" in line
    ]
    assert told == [" (see below)", "", " (see above)"]


def test_the_home_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    hold = f"from pathlib import Path; from taut.entrypoints.client import home_lock\nwith home_lock(Path({str(tmp_path)!r})):\n print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {other.pid}"), home_lock(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()

    with home_lock(tmp_path):  # a killed holder leaves nothing behind
        pass


def test_the_doctor_finds_what_was_planted_and_says_how_to_mend_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys/token.pem").write_text("secret")
    (home / "keys/token.pem").chmod(0o644)
    (home / "run").mkdir()
    (home / "run/control.sock").touch()
    (home / "taut.db").write_bytes(b"this is no database, but it is long enough to be one" * 20)

    found = {finding.name: finding for finding in examine(home, {})}

    assert (found["keys"].state, "chmod" in found["keys"].mend) == ("bad", True)
    assert found["socket"].state == "warn"
    assert found["workers"].state == ("ok" if sys.platform == "linux" else "warn")
    assert "processor time" in found["workers"].said
    assert found["home"].state == "warn"
    assert found["database"].state == "bad"
    assert (found["python"].state, found["clock"].state) == ("ok", "ok")
    assert {finding.name for finding in examine(tmp_path / "new", {}) if finding.state == "bad"} == set()


def test_the_sample_project_is_the_same_every_time_and_spares_what_is_there(tmp_path: Path) -> None:
    assert sample_data() == sample_data()
    one, two = tmp_path / "one", tmp_path / "two"
    assert write_project(one) == write_project(two)
    for name in write_project(tmp_path / "three"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    with pytest.raises(Conflict, match="not empty"):
        write_project(one)


def test_help_answers_in_time() -> None:
    """In processor time, which a busy machine does not change much; `make bench` has the figure of the clock."""
    before = processor_s()
    subprocess.run([sys.executable, "-m", "taut.entrypoints.cli", "--help"], capture_output=True, check=True)

    assert processor_s() - before < 1.0


def processor_s() -> float:
    """What the processes that this one started and that have ended took."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def test_the_version_is_said_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("taut ")


def test_bytecode_that_was_cut_is_named_instead_of_an_interruption(tmp_path: Path) -> None:
    """A full disk cuts it; Python before 3.12.8 keeps it, and fails on it ever after."""
    source = SRC.parent / "templates.py"
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    cut = tmp_path / "bytecode" / source.relative_to("/").with_suffix(f".{sys.implementation.cache_tag}.pyc")
    py_compile.compile(str(source), cfile=str(cut))
    cut.write_bytes(cut.read_bytes()[:-100])

    done = subprocess.run(
        [sys.executable, "-m", "taut.entrypoints.cli", "--json", "init", "shop"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environ,
    )  # fmt: skip

    assert done.returncode == 8, done
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "corrupt"
    assert "remove the __pycache__ folders" in error["message"]


def test_processes_that_serve_load_no_library_of_control() -> None:
    """Each would cost every gateway its memory, and a second of its start."""
    code = "import sys; from taut.entrypoints import gateway_main, grpc_main, link_main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"polars", "sqlalchemy", "starlette", "sklearn", "alembic", "scipy"} & set(done.stdout.split())


def test_jobs_load_no_library_of_control() -> None:
    """A job that trains, scores or computes features has no database and no keys: what it cannot reach it need not import."""
    jobs = (
        "lifecycle.training",
        "lifecycle.training.variants",
        "lifecycle.features",
        "serving.batch",
        "serving.runtime",
    )
    code = f"import sys, {', '.join(f'taut.{room}.job' for room in jobs)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"sqlalchemy", "alembic", "starlette", "cryptography", "asyncio", "httpx"} & set(
        done.stdout.split()
    )
