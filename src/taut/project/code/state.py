"""State as data: JSON values, bytes and arrays to a tree and files beside it, and back. Nothing of it can run.

In the tree a JSON object always has one key that says what it stands for; everything else stands for itself. Arrays lie
beside it as their bare bytes, so that there is no format in which a pickle could travel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from taut.core.errors import Corrupt, InvalidInput

DEPTH_MAX: Final = 32
_INT_MAX: Final = 2**63 - 1
_DTYPE: Final = re.compile(r"[<>|][biufcUSMm]\d{1,7}(\[[0-9]{0,6}[a-zA-Z]{1,2}\])?")
_REMEDY: Final = (
    "keep plain values (text, numbers, booleans, lists, dicts), bytes or numpy arrays of numbers or text"
)


def freeze(value: Any, *, where: str, files: dict[str, bytes]) -> Any:
    """Return the tree of a value, and add what does not fit in it to `files`.

    where: what the value is, for messages. Raises InvalidInput, naming the part, for a value that cannot travel as data:
    an object of a class, a function, an array of objects, what contains itself.
    """
    return _freeze(value, where, files, 0)


def _freeze(value: Any, where: str, files: dict[str, bytes], depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise InvalidInput(
            f"{where} is nested more than {DEPTH_MAX} deep, or contains itself: make it flatter"
        )
    kind = type(value)  # exactly: a subclass may mean more than its value
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if abs(value) > _INT_MAX:
            raise InvalidInput(f"{where} is {str(value)[:40]}, beyond 64 bits: keep it as text")
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is list:
        return [_freeze(item, f"{where}[{at}]", files, depth + 1) for at, item in enumerate(value)]
    if kind is tuple:
        return {"tuple": [_freeze(item, f"{where}[{at}]", files, depth + 1) for at, item in enumerate(value)]}
    if kind is dict:
        return {
            "dict": [
                [_key(key, where), _freeze(item, f"{where}[{key!r:.40}]", files, depth + 1)]
                for key, item in value.items()
            ]
        }
    if kind is bytes:
        return {"bytes": _kept(value, files)}
    return _freeze_array(value, where, files)


def _key(key: object, where: str) -> Any:
    if type(key) in (str, int, bool) or key is None:
        return key
    raise InvalidInput(f"{where} has the key {key!r:.60}: use text, whole numbers or booleans as keys")


def _freeze_array(value: Any, where: str, files: dict[str, bytes]) -> Any:
    import numpy as np

    if type(value) is not np.ndarray and not isinstance(value, np.generic):
        kind = type(value)
        raise InvalidInput(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot travel as data: {_REMEDY}"
        )
    array = np.asarray(value)
    if not _DTYPE.fullmatch(array.dtype.str):
        raise InvalidInput(
            f"{where} is an array of {array.dtype}, whose items would be objects or records: {_REMEDY}"
        )
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    name = _kept(array.tobytes(order=order), files)
    return {
        "array" if type(value) is np.ndarray else "scalar": [array.dtype.str, list(array.shape), order, name]
    }


def _kept(data: bytes, files: dict[str, bytes]) -> str:
    name = f"state/{len(files):06d}"
    files[name] = data
    return name


def thaw(tree: Any, files: Mapping[str, bytes]) -> Any:
    """Return the value of a tree. Raises Corrupt for one that `freeze` cannot have made."""
    try:
        return _thaw(tree, files, 0)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise Corrupt(f"the model's state cannot be read ({error}): train it again") from error


def _thaw(tree: Any, files: Mapping[str, bytes], depth: int) -> Any:
    if depth > 2 * DEPTH_MAX:
        raise ValueError("it is nested too deep")
    if isinstance(tree, list):
        return [_thaw(item, files, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((tag, body),) = tree.items()
    if tag == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[body]
    if tag == "tuple":
        return tuple(_thaw(item, files, depth + 1) for item in body)
    if tag == "dict":
        return {key: _thaw(item, files, depth + 1) for key, item in body}
    if tag == "bytes":
        return files[body]
    if tag in ("array", "scalar"):
        array = _thaw_array(body, files)
        return array if tag == "array" else array[()]
    raise ValueError(f"nothing stands for {tag!r}")


def _thaw_array(body: Any, files: Mapping[str, bytes]) -> Any:
    import numpy as np

    dtype, shape, order, name = body
    if not _DTYPE.fullmatch(dtype) or order not in ("C", "F"):
        raise ValueError(f"an array of {str(dtype)[:40]!r} is none of numbers or text")
    data, kind = files[name], np.dtype(dtype)
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * kind.itemsize != len(
        data
    ):
        raise ValueError(f"an array of shape {shape} does not fit its {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order=order).copy(order="K")  # its own, to be written to
