"""Callables as files of source and data: what travels and comes back the same, and what is refused with its reason."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, InvalidInput
from taut.project.archive import read_archive, write_archive
from taut.project.bundle import make_bundle
from taut.project.code import CodeFailed, capture, open_code, pack_code, revive
from taut.project.code.artifact import Document
from taut.project.code.needs import imports_of
from taut.project.code.state import freeze, thaw

SCORING = """
from dataclasses import InitVar, dataclass, field
import functools

import numpy as np

from shop.helpers import double

def plain(columns):
    return double(columns["x"])

def scaled(factor, columns, *, add=0.0):
    return factor * columns["x"] + add

@dataclass
class Line:
    weights: np.ndarray
    words: dict
    name: str = "line"
    total: float = field(init=False, default=0.0)

    def __post_init__(self):
        self.total = float(self.weights.sum())

    @functools.cached_property
    def cached(self):
        return self.total

    def __call__(self, columns):
        return columns["x"] * self.cached

@dataclass
class Early:
    seed: InitVar[int]
    x: int = 0
    def __post_init__(self, seed): pass
    def __call__(self, columns): return columns["x"]

class Bare:
    def __call__(self, columns): return columns["x"]

def made():
    inner = lambda columns: columns["x"]
    def closure(columns): return columns["x"]
    class Local:
        def __call__(self, columns): return columns["x"]
    return inner, closure, Local()

def wrap(function):
    @functools.wraps(function)
    def replaced(columns): return function(columns)
    return replaced

def decorated(columns): return columns["x"]
before = decorated
decorated = wrap(decorated)
"""
HELPERS = "import scipy.special\n\ndef double(values):\n    return 2 * values\n"
X = {"x": np.array([1.0, 2.0])}


class Shop:
    """A project whose module `scoring` is imported from its folder, as in a training job."""

    def __init__(self, folder: Path) -> None:
        (folder / "shop").mkdir()
        (folder / "scoring.py").write_text(SCORING)
        (folder / "shop/helpers.py").write_text(HELPERS)  # a package without __init__
        self.bundle = make_bundle(folder)
        self.scoring: Any = importlib.import_module("scoring")

    def file(self, model: Callable[..., Any]) -> bytes:
        return pack_code(capture(model, self.bundle))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Shop(tmp_path)
    forget()


def forget() -> None:
    for name in ("scoring", "shop", "shop.helpers"):
        sys.modules.pop(name, None)


def answers(data: bytes) -> list[float]:
    """What a process that loads the file anew answers."""
    forget()
    revived = revive(open_code(data))
    try:
        found: list[float] = revived(X, 2).tolist()
        return found
    finally:
        revived.close()


def test_a_function_a_partial_and_a_dataclass_come_back_from_source_and_data(shop: Shop) -> None:
    code = shop.scoring
    line = code.Line(weights=np.array([1.0, 2.5]), words={"a": 1, 2: (None, [True])})
    assert line.cached == 3.5  # what it has worked out is worked out again, not lost
    files = [shop.file(code.plain), shop.file(functools.partial(code.scaled, 3, add=0.5)), shop.file(line)]

    assert answers(files[0]) == [2.0, 4.0]
    assert answers(files[1]) == [3.5, 6.5]
    assert answers(files[2]) == [3.5, 7.0]


def test_equal_models_have_equal_bytes_and_the_bundle_as_it_was(shop: Shop) -> None:
    def build() -> bytes:
        return shop.file(shop.scoring.Line(weights=np.arange(6.0).reshape(2, 3).T, words={"b": 1, "a": 2}))

    assert build() == build()
    assert open_code(build()).bundle == shop.bundle


def test_what_the_code_imports_is_recorded_by_version_through_the_projects_own_modules(shop: Shop) -> None:
    document = open_code(shop.file(shop.scoring.plain)).document

    assert set(document.requires) == {"numpy", "scipy"}
    assert document.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_code_that_was_trained_with_other_versions_is_refused_by_name(shop: Shop) -> None:
    found = open_code(shop.file(shop.scoring.plain))
    older = msgspec.structs.replace(found.document, requires={"numpy": "1.0.0"})
    gone = msgspec.structs.replace(found.document, requires={"no-such-package": "1"})
    snake = msgspec.structs.replace(found.document, python="2.7")

    for document, said in ((older, "numpy 1.0.0"), (gone, "no-such-package 1"), (snake, "Python 2.7")):
        with pytest.raises(InvalidInput, match=said):
            revive(msgspec.structs.replace(found, document=document))


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "lambda": (lambda code: code.made()[0], "is a lambda"),
    "closure": (lambda code: code.made()[1], "nested in another"),
    "local class": (lambda code: code.made()[2], "neither a function nor a dataclass"),
    "no dataclass": (lambda code: code.Bare(), "neither a function nor a dataclass"),
    "initvar": (lambda code: code.Early(seed=1), "InitVar"),
    "replaced": (lambda code: code.before, "not what that name leads to"),
    "elsewhere": (lambda code: math.sqrt, "neither a function nor a dataclass"),
    "other module": (lambda code: test_equal_models_have_equal_bytes_and_the_bundle_as_it_was, "no module of the project"),
    "partial of it": (lambda code: functools.partial(math.pow, 2.0), "no function of the project"),
    "object array": (lambda code: code.Line(weights=np.array([object()]), words={}) , "array of object"),
    "record array": (lambda code: functools.partial(code.scaled, np.zeros(2, dtype=[("a", "f4")])), "array of"),
    "a model": (lambda code: functools.partial(code.scaled, code.Bare()), "cannot travel as data"),
    "a set": (lambda code: functools.partial(code.scaled, {1, 2}), "builtins.set"),
    "a function": (lambda code: functools.partial(code.scaled, add=code.plain), "builtins.function"),
    "a big number": (lambda code: functools.partial(code.scaled, 2**80), "64 bits"),
    "a tuple key": (lambda code: functools.partial(code.scaled, {(1, 2): 3}), "as keys"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_travel_as_source_and_data_is_refused_with_its_reason(shop: Shop, case: str) -> None:
    build, said = REFUSED[case]
    shop.scoring.Line.__post_init__ = lambda self: None  # an array of objects has no sum

    with pytest.raises(InvalidInput, match=said):
        shop.file(build(shop.scoring))


def test_an_attribute_that_is_no_field_would_be_lost_and_is_refused(shop: Shop) -> None:
    line = shop.scoring.Line(weights=np.zeros(2), words={})
    line.learned = 3

    with pytest.raises(InvalidInput, match="'learned', which is no field"):
        shop.file(line)


def test_what_contains_itself_is_refused(shop: Shop) -> None:
    round_: list[Any] = []
    round_.append(round_)

    with pytest.raises(InvalidInput, match="contains itself"):
        shop.file(functools.partial(shop.scoring.scaled, round_))


plain = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats() | st.text() | st.binary()
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(0, 9), inner)
    ),
    max_leaves=20,
)


@given(value=values)
@settings(max_examples=150, deadline=None)
def test_any_plain_state_comes_back_as_it_was(value: Any) -> None:
    files: dict[str, bytes] = {}
    try:
        tree = msgspec.json.decode(msgspec.json.encode(freeze(value, where="it", files=files)))
    except UnicodeEncodeError:
        return  # half a surrogate: no JSON, and refused when the file is packed

    assert repr(thaw(tree, files)) == repr(value)


@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype="<i8").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3.5),
     np.zeros((0, 4), dtype=np.float32), np.array(["one", "twö"]), np.array([b"x"]), np.array(["2020-01-01"], "M8[us]"),
     np.array([True, False]), np.array([1 + 2j]), np.arange(4, dtype=">i4")],
)  # fmt: skip
def test_any_array_comes_back_as_it_was_and_may_be_written_to(array: Any) -> None:
    files: dict[str, bytes] = {}
    found = thaw(freeze(array, where="it", files=files), files)

    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert (found == array).all()
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert found.flags.writeable


def test_a_numpy_scalar_comes_back_as_one() -> None:
    files: dict[str, bytes] = {}
    found = thaw(freeze(np.float32(1.5), where="it", files=files), files)

    assert type(found) is np.float32


# files that nobody here wrote


def document(**changes: Any) -> dict[str, Any]:
    made = Document(
        module="scoring", name="score", kind="function", args={"tuple": []}, kwargs={"dict": []}, requires={},
        python="3.11",
    )  # fmt: skip
    return {**msgspec.to_builtins(made), **changes}


def archive(*, code: bytes | None = None, told: dict[str, Any] | None = None, **more: bytes) -> bytes:
    code = write_archive({"scoring.py": b"def score(columns): ..."}) if code is None else code
    return write_archive({"model.json": msgspec.json.encode(told or document()), "code.zip": code, **more})


BROKEN = {
    "no archive": (b"nonsense", "no readable archive"),
    "a pickle": (b"\x80\x04\x95\x00", "no readable archive"),
    "leaves the folder": (write_archive({"../model.json": b"{}"}), "would leave the folder"),
    "no code": (write_archive({"model.json": b"{}"}), "holds no code.zip"),
    "no document": (write_archive({"code.zip": b""}), "holds no model.json"),
    "more than that": (archive(**{"evil.so": b"\x7fELF"}), "more than code and state"),
    "unknown fields": (archive(told=document(reduce="os.system")), "does not fit"),
    "another format": (archive(told=document(format=2)), "format 2"),
    "another kind": (archive(told=document(kind="pickle")), "does not fit"),
    "no such module": (archive(told=document(module="os")), "no module 'os'"),
    "code that leaves": (archive(code=write_archive({"../scoring.py": b""})), "would leave the folder"),
    "code that is none": (archive(code=b"PK"), "no readable archive"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_taut_cannot_have_written_is_corrupt(case: str) -> None:
    data, said = BROKEN[case]

    with pytest.raises(Corrupt, match=said):
        open_code(data)


@pytest.mark.parametrize(
    "tree",
    [{"array": ["|O", [1], "C", "state/000000"]}, {"array": ["<f8", [2**40, 2**40], "C", "state/000000"]},
     {"array": ["<f8", [-1], "C", "state/000000"]}, {"array": ["<f8", [2], "C", "state/000000"]},
     {"array": ["<f8", [1], "C", "nowhere"]}, {"array": ["f8,i4", [1], "C", "state/000000"]}, {"pickle": "state/000000"},
     {"dict": [[["list"], 1]]}, {"dict": 3}, {"float": "1e999"}, {}, {"a": 1, "b": 2}, "text"],
    ids=repr,
)  # fmt: skip
def test_state_that_taut_cannot_have_written_is_corrupt_and_never_an_object(tree: Any) -> None:
    data = archive(
        told=document(args={"tuple": [tree]} if tree != "text" else tree), **{"state/000000": b"\0" * 8}
    )

    with pytest.raises(Corrupt):
        open_code(data).given()


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_is_corrupt_or_a_readable_model(position: int, flip: int) -> None:
    data = bytearray(archive(**{"state/000000": b"\0" * 64}))
    data[position % len(data)] ^= flip

    with contextlib.suppress(Corrupt):  # and nothing else, whatever it was
        open_code(bytes(data)).given()


# what code may do when it is loaded and asked


def score(text: str, columns: dict[str, Any] | None = None) -> Any:
    """The answers of a module that holds `score`."""
    code = write_archive({"scoring.py": text.encode()})
    told = document(python=f"{sys.version_info.major}.{sys.version_info.minor}")
    revived = revive(open_code(archive(code=code, told=told)))
    try:
        return revived(columns or X, 2)
    finally:
        revived.close()


RAISES = {
    "an error": (
        "def score(columns):\n    return columns['nothing']",
        "raised KeyError in scoring.py, line 2",
    ),
    "an exit": ("import sys\ndef score(columns): sys.exit(4)", "raised SystemExit in scoring.py, line 2"),
    "an interrupt": ("def score(columns): raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "a write": ("def score(columns):\n    columns['x'][0] = 1", "raised ValueError in scoring.py, line 2"),
    "too few": ("def score(columns): return [1.0]", r"returned float64 of shape \(1,\) for 2 rows"),
    "nothing": ("def score(columns): return None", "returned object"),
    "words": ("def score(columns): return ['a', 'b']", "returned <U1"),
    "ragged": ("def score(columns): return [[1], [1, 2]]", "raised ValueError"),
    "a cube": (
        "import numpy as np\ndef score(columns): return np.zeros((2, 2, 2))",
        "returned float64 of shape",
    ),
}


@pytest.mark.parametrize("case", RAISES)
def test_whatever_code_does_with_a_row_is_one_failure_that_quotes_nothing(case: str) -> None:
    text, said = RAISES[case]

    with pytest.raises(CodeFailed, match=said) as caught:
        score(text)

    assert "nothing" not in str(caught.value)


def test_memory_that_ran_out_is_no_failure_of_one_row() -> None:
    with pytest.raises(MemoryError):
        score("def score(columns): raise MemoryError")


def test_numbers_of_any_kind_are_answers() -> None:
    assert score("def score(columns): return [True, False]").tolist() == [1.0, 0.0]
    assert score("def score(columns): return columns['x'].astype('f4')").dtype == np.float32
    assert score("def score(columns): return [[1], [2]]").tolist() == [[1.0], [2.0]]


LOADS = {
    "an error": ("raise ValueError('no model file')", "ValueError in scoring.py, line 1: no model file"),
    "a package": ("import no_such_package_here", "No module named 'no_such_package_here'"),
    "a file": ("open('weights.bin')", "FileNotFoundError in scoring.py, line 1"),
    "syntax": ("def score(:", "SyntaxError in scoring.py, line 1"),
    "an exit": ("import sys; sys.exit(1)", "SystemExit"),
    "nothing there": ("def other(columns): ...", "has no attribute 'score'"),
}


@pytest.mark.parametrize("case", LOADS)
def test_code_that_cannot_be_loaded_says_where_and_why(case: str) -> None:
    text, said = LOADS[case]

    with pytest.raises(InvalidInput, match=said):
        score(text)

    assert "scoring" not in sys.modules


def test_two_models_of_one_process_have_their_own_modules_whenever_they_import_them() -> None:
    """As the nodes of a graph in a job: the second would else answer by the code of the first."""
    text = "import early\ndef score(columns):\n    from pkg import late\n    return [early.N, late.N]"
    told = document(python=f"{sys.version_info.major}.{sys.version_info.minor}")

    def model(n: int) -> Any:
        files = {"scoring.py": text, "early.py": f"N = {n}", "pkg/late.py": f"N = {10 * n}"}
        code = write_archive({name: body.encode() for name, body in files.items()})
        return revive(open_code(archive(code=code, told=told)))

    one, two = model(1), model(2)
    try:
        said = [found(X, 2).tolist() for found in (two, one, two, one)]
    finally:
        one.close()
        two.close()

    assert said == [[2.0, 20.0], [1.0, 10.0], [2.0, 20.0], [1.0, 10.0]]
    assert not {"scoring", "early", "pkg", "pkg.late"} & set(sys.modules)


def test_a_projects_module_hides_neither_python_nor_taut(tmp_path: Path) -> None:
    files = {"scoring.py": b"import json, taut.core.errors\ndef score(columns): return [hasattr(json, 'evil'), 0]",
             "json.py": b"evil = 1", "taut/__init__.py": b"evil = 1", "taut/core/errors.py": b"evil = 1"}  # fmt: skip
    told = document(python=f"{sys.version_info.major}.{sys.version_info.minor}")
    path = tmp_path / "model.taut"
    path.write_bytes(archive(code=write_archive(files), told=told))
    program = (
        "import sys; from pathlib import Path; from taut.project.code import open_code, revive; sys.modules.pop('json', None)\n"
        f"found = revive(open_code(Path({str(path)!r}).read_bytes()))({{}}, 2)\n"
        "import taut.core.errors; print(found.tolist(), hasattr(taut.core.errors, 'evil'))"
    )

    said = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[0.0, 0.0] False"


def test_imports_are_followed_wherever_they_stand() -> None:
    files = {
        "a.py": b"def f():\n    import polars.col\n    from .b import x\nfrom pkg import mod, thing",
        "pkg/__init__.py": b"from . import deep\nimport taut, json", "pkg/mod.py": b"import numpy as np",
        "pkg/deep/__init__.py": b"from ..mod import y\nfrom scipy.special import expit", "pkg/other.py": b"import torch",
        "broken.py": b"def (",
    }  # fmt: skip

    assert imports_of(files, "a") == {"polars", "numpy", "scipy"}
    assert imports_of(files, "broken") == set()


def test_an_archive_is_bounded_before_it_is_unpacked() -> None:
    data = write_archive({"a": b"0" * 1000})

    with pytest.raises(Corrupt, match="beyond its bounds"):
        read_archive(data, what="it", remedy="no", max_bytes=900, max_files=10)
    with pytest.raises(Corrupt, match="more than any"):
        read_archive(data, what="it", remedy="no", max_bytes=100, max_files=10)
