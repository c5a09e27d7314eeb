"""Importing a builder's code, and saying in his words what went wrong in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from taut.core.errors import InvalidInput, TautError


def import_module(name: str, root: Path) -> ModuleType:
    """Import module `name`, which must come from below `root`; explain what fails. `root` must be on `sys.path`."""
    with explained(root):
        module = importlib.import_module(name)
    _check_origin(module, name, root)
    return module


def import_file(path: Path, name: str, root: Path) -> ModuleType:
    """Import one file under a name of our choice; explain what fails."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is no Python file: name the project file, for example project.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with explained(root, path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def explained(root: Path, file: Path | None = None) -> Iterator[None]:
    """Turn what a builder's code raises into InvalidInput that names file and line below `root`.

    An error of taut's own keeps its class and gains the place. file: what is imported, for errors that do not say so.
    """
    try:
        yield
    except SyntaxError as error:
        raise InvalidInput(
            f"{_where(error, root, file)}{error.msg}: mend the syntax{_line(error)}"
        ) from error
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{_place(error, root)}{error.msg}: {_remedy(error)}") from error
    except NameError as error:
        raise InvalidInput(f"{_place(error, root)}{error}{_defined(error)}") from error
    except TautError as error:
        place = _place(error, root)
        if place and not error.message.startswith(place):
            error.message = place + error.message
            error.args = (error.message,)
        raise
    except SystemExit as error:
        raise InvalidInput(
            f"{_place(error, root)}the code calls sys.exit() when imported: remove it"
        ) from error
    except Exception as error:  # whatever a builder's code raises at import is his input
        raise InvalidInput(
            f"{_place(error, root)}{type(error).__name__}: {error}: importing this code must not fail"
        ) from error


def _place(error: BaseException, root: Path) -> str:
    """`file, line n: ` of the innermost frame in the builder's own code, or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and path.is_relative_to(root) and "site-packages" not in path.parts:
            return f"{_short(frame.filename, root)}, line {frame.lineno}: "
    return ""


def _where(error: SyntaxError, root: Path, file: Path | None) -> str:
    """`file, line n: `; Python names neither for a file with a NUL byte, and no line for one that is no text."""
    name = _short(error.filename or (str(file) if file is not None else "the code"), root)
    return f"{name}, line {error.lineno}: " if error.lineno else f"{name}: "


def _line(error: SyntaxError) -> str:
    return f"\n    {error.text.strip()}" if error.text else ""


def _defined(error: NameError) -> str:
    """The nearest name that is defined where the wrong one was used."""
    from taut.project.words import nearest

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    known = [] if trace is None else [*trace.tb_frame.f_globals, *trace.tb_frame.f_locals]
    near = nearest(error.name or "", [name for name in known if not name.startswith("__")])
    return near if "did you mean" in near else ": define it, or import it"


def _short(filename: str, root: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(root)) if path.is_absolute() and path.is_relative_to(root) else filename


def _remedy(error: ModuleNotFoundError) -> str:
    from importlib.metadata import packages_distributions  # 80 ms that only this error should cost

    from taut.project.words import nearest

    name = (error.name or "").partition(".")[0]
    near = nearest(name, {*sys.stdlib_module_names, *packages_distributions()})
    if "did you mean" in near:
        return f"{near.removeprefix(': ')} Else install the package {name!r}, or put {name}.py into the project's folder"
    return f"install the package {name!r} into the environment that runs taut, or put {name}.py into the project's folder"


def _check_origin(module: ModuleType, name: str, root: Path) -> None:
    origin = getattr(module, "__file__", None)
    places = [origin] if origin else list(getattr(module, "__path__", []))
    if not any(Path(place).resolve().is_relative_to(root) for place in places):
        raise InvalidInput(
            f"module {name!r} of the project is hidden by an installed one ({places[0] if places else 'built in'}): "
            "rename the project's file"
        )
