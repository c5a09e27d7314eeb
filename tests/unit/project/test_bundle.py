"""Bundles are deterministic, bounded, and cannot be made to write or import anything but the project's code."""

from __future__ import annotations

import contextlib
import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.project.archive import write_archive
from taut.project.bundle import MAX_BUNDLE_BYTES, make_bundle, module_name, open_bundle, parse_bundle

FILE_MODE = (stat.S_IFREG | 0o644) << 16


def project(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def zip_of(name: str, data: bytes = b"x", *, mode: int = FILE_MODE, kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        entry = zipfile.ZipInfo(name)
        entry.create_system = 3
        entry.external_attr = mode
        entry.compress_type = kind
        archive.writestr(entry, data)
    return buffer.getvalue()


def test_the_same_code_gives_the_same_bytes_wherever_and_whenever_it_was_written(tmp_path: Path) -> None:
    files = {"project.py": "a = 1", "lib/__init__.py": "", "lib/b.py": "b = 2"}
    one = project(tmp_path / "one", files)
    two = project(tmp_path / "two", dict(reversed(files.items())))
    (two / "project.py").chmod(0o700)

    assert make_bundle(one) == make_bundle(two)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}\.py", fullmatch=True), st.text(max_size=40), max_size=5))
def test_any_project_comes_back_from_its_bundle_as_it_was(files: dict[str, str]) -> None:
    data = write_archive({name: text.encode() for name, text in files.items()})

    opened = parse_bundle(data)

    assert opened.files == {name: text.encode() for name, text in files.items()}
    assert opened.digest == digest_bytes(data)


def test_a_changed_line_changes_the_digest(tmp_path: Path) -> None:
    root = project(tmp_path, {"project.py": "a = 1"})
    before = digest_bytes(make_bundle(root))
    (root / "project.py").write_text("a = 2")

    assert digest_bytes(make_bundle(root)) != before


def test_data_state_environments_and_caches_stay_outside(tmp_path: Path) -> None:
    root = project(
        tmp_path,
        {
            "project.py": "", "data/flights.csv": "a,b", ".git/hook.py": "", ".taut/x.py": "", ".env": "SECRET=1",
            "env/pyvenv.cfg": "", "env/lib/x.py": "", "__pycache__/y.py": "", "contracts/flights.yaml": "v: 1",
        },
    )  # fmt: skip

    names = set(parse_bundle(make_bundle(root, named=["contracts/flights.yaml"])).files)

    assert names == {"project.py", "contracts/flights.yaml"}


def test_a_project_file_called_taut_enters_under_a_name_that_hides_nothing(tmp_path: Path) -> None:
    root = project(tmp_path, {"taut.py": "a = 1"})

    assert set(parse_bundle(make_bundle(root)).files) == {"taut_project.py"}
    assert module_name(root / "taut.py", root) == "taut_project"
    assert module_name(root / "lib/features.py", root) == "lib.features"


def test_links_are_refused(tmp_path: Path) -> None:
    outside = project(tmp_path / "outside", {"x.py": "", "c.yaml": ""})
    root = project(tmp_path / "root", {"project.py": ""})
    (root / "linked.py").symlink_to(outside / "x.py")
    with pytest.raises(InvalidInput, match=r"linked\.py is a symbolic link"):
        make_bundle(root)
    (root / "linked.py").unlink()
    (root / "package").symlink_to(outside)
    with pytest.raises(InvalidInput, match="package is a symbolic link to code"):
        make_bundle(root)


def test_a_link_to_data_is_no_concern_of_the_bundle(tmp_path: Path) -> None:
    outside = project(tmp_path / "outside", {"flights.csv": "a"})
    root = project(tmp_path / "root", {"project.py": ""})
    (root / "data").symlink_to(outside)

    assert set(parse_bundle(make_bundle(root)).files) == {"project.py"}


@pytest.mark.parametrize("item", ["../secret.yaml", "/etc/hostname", "a/../../secret.yaml"])
def test_a_named_file_outside_the_project_is_refused(tmp_path: Path, item: str) -> None:
    root = project(tmp_path / "root", {"project.py": ""})
    (tmp_path / "secret.yaml").write_text("x")

    with pytest.raises(InvalidInput, match="outside the project's folder"):
        make_bundle(root, named=[item])


def test_an_absent_folder_or_named_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no project folder"):
        make_bundle(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"no file .*missing\.yaml"):
        make_bundle(tmp_path, named=["missing.yaml"])


def test_too_much_code_is_refused_with_the_bound(tmp_path: Path) -> None:
    root = project(tmp_path, {"huge.py": "#" * (MAX_BUNDLE_BYTES + 1)})

    with pytest.raises(InvalidInput, match="16 MiB"):
        make_bundle(root)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (zip_of("../evil.py"), "would leave the folder"),
        (zip_of("/etc/evil.py"), "would leave the folder"),
        (zip_of("a/../../evil.py"), "would leave the folder"),
        (zip_of("C:evil.py"), "would leave the folder"),
        (zip_of("a\\..\\evil.py"), "would leave the folder"),
        (zip_of("link.py", mode=(stat.S_IFLNK | 0o777) << 16), "no plain file"),
        (zip_of("bomb.py", b"0" * 100_000, kind=zipfile.ZIP_DEFLATED), "compressed"),
        (b"no zip at all", "no readable archive"),
        (b"", "no readable archive"),
    ],
)
def test_a_bundle_that_taut_cannot_have_written_is_corrupt(data: bytes, match: str) -> None:
    with pytest.raises(Corrupt, match=match):
        parse_bundle(data)


def test_a_name_given_twice_is_corrupt() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("x.py", "y.py"):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = FILE_MODE
            archive.writestr(entry, b"")
    data = buffer.getvalue().replace(b"y.py", b"x.py")

    with pytest.raises(Corrupt, match="twice"):
        parse_bundle(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_never_gives_other_code_silently(position: int, flip: int) -> None:
    """Either the bundle is refused, or its digest (which control signed) differs."""
    data = bytearray(write_archive({"project.py": b"a = 1\n" * 20, "lib.py": b"b"}))
    original = digest_bytes(bytes(data))
    data[position % len(data)] ^= flip
    with contextlib.suppress(Corrupt):
        assert parse_bundle(bytes(data)).digest != original


def test_extraction_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    opened = parse_bundle(write_archive({"a.py": b""}))
    (tmp_path / "there").touch()

    with pytest.raises(InvalidInput, match="not empty"):
        opened.extract(tmp_path)


def test_an_absent_bundle_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="apply the project again"):
        open_bundle(tmp_path / "none.zip")


LOAD = """
import sys
from pathlib import Path
from taut.core.errors import TautError
from taut.project.bundle import load_function
from taut.project.manifest import FunctionRef
try:
    print(load_function(Path(sys.argv[1]), FunctionRef(sys.argv[2], sys.argv[3]), into=Path(sys.argv[4]))())
except TautError as error:
    print(type(error).__name__, error)
"""


def load(tmp_path: Path, files: dict[str, str], module: str, name: str) -> str:
    """Load a function the way a job does, in a process of its own."""
    path = tmp_path / "bundle.zip"
    path.write_bytes(make_bundle(project(tmp_path / "code", files)))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, module, name, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_function_runs_from_its_bundle_with_its_helpers(tmp_path: Path) -> None:
    files = {
        "taut.py": "from lib.help import two\nimport taut\ndef f(): return two() + len(taut.__version__)",
        "lib/__init__.py": "",
        "lib/help.py": "def two():\n    from late import three\n    return three()",
        "late.py": "def three(): return 3",
    }

    assert load(tmp_path, files, "taut_project", "f") == "8"


@pytest.mark.parametrize(
    ("files", "module", "name", "said"),
    [
        ({"p.py": "def f(:\n  pass"}, "p", "f", "InvalidInput p.py, line 1: "),
        ({"p.py": "\nimport nopolars\n"}, "p", "f", "InvalidInput p.py, line 2: No module named 'nopolars': did you mean 'polars'? Else install"),
        ({"p.py": "import h", "h.py": "x = 1 / 0"}, "p", "f", "InvalidInput h.py, line 1: ZeroDivisionError"),
        ({"p.py": "import sys\nsys.exit(3)"}, "p", "f", "InvalidInput p.py, line 2: the code calls sys.exit()"),
        ({"p.py": "x = 1"}, "p", "f", "InvalidInput no function 'f' in module 'p'"),
        ({"p.py": ""}, "q", "f", "InvalidInput No module named 'q'"),
        ({"re.py": "def f(): return 1"}, "re", "f", "InvalidInput module 're' of the project is hidden"),
    ],
)  # fmt: skip
def test_what_fails_at_import_is_said_with_file_line_and_remedy(
    tmp_path: Path, files: dict[str, str], module: str, name: str, said: str
) -> None:
    assert load(tmp_path, files, module, name).startswith(said)
