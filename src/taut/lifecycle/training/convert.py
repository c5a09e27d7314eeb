"""From what a builder trained to an ONNX model, with words for what cannot be converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.ort import load_onnxruntime
from taut.core.schema import Column, DType
from taut.lifecycle.training.code_form import classes_of, from_code
from taut.lifecycle.training.converted import Converted, Label
from taut.lifecycle.training.encode import MATRIX, Tensor, feed, is_float
from taut.lifecycle.training.onnx_form import normalise, rename_input
from taut.project.code import is_code
from taut.project.training import Trained

Array = npt.NDArray[Any]

# Sets that skl2onnx 1.19 and later and every onnxruntime since 1.17 know.
_OPSETS: Final = {"": 18, "ai.onnx.ml": 3}


def convert(
    trained: Trained, columns: Sequence[Column], labels: pl.Series, *, bundle: bytes | None, threads: int = 0
) -> Converted:
    """Convert what a training function returned.

    columns: its inputs with their types, in order. labels: those of the training rows. bundle: the project's, from which a
    callable was imported; without one a callable is asked where it is, and gives no artifact. threads: of the
    predictions that are served; 0 as many as there are.
    Raises InvalidInput, saying what cannot be converted and what to do instead.
    """
    model = trained.model
    if is_code(model):
        return from_code(model, trained, columns, labels, bundle=bundle)
    made = _to_onnx(trained, columns, labels)
    return Converted(
        artifact=made.onnx, form="onnx", tensor=made.tensor, classes=made.classes, own=made.own, kind=made.kind,
        served=lambda frame: predictions(_session(made.onnx, threads), frame, columns, made.tensor),
    )  # fmt: skip


def _session(onnx: bytes, threads: int) -> Any:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class _Onnx(msgspec.Struct, frozen=True, kw_only=True):
    onnx: bytes
    tensor: Tensor
    classes: tuple[Label, ...]
    own: Callable[[pl.DataFrame], Array] | None
    kind: str


def _to_onnx(trained: Trained, columns: Sequence[Column], labels: pl.Series) -> _Onnx:
    model = trained.model
    if isinstance(model, bytes) or type(model).__module__.split(".")[0] == "onnx":
        return _from_onnx(model, trained, columns, labels)
    family = type(model).__module__.split(".")[0]
    if family in ("lightgbm", "xgboost"):
        return _from_booster(model, family, trained, columns)
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise InvalidInput(
            f"a {type(model).__module__}.{type(model).__qualname__} cannot be converted to ONNX: return a fitted "
            "scikit-learn estimator or pipeline, an ONNX model, an XGBoost or LightGBM model, or a callable of the project"
        )
    return _from_sklearn(model, trained, columns)


def _from_sklearn(model: Any, trained: Trained, columns: Sequence[Column]) -> _Onnx:
    _check_fitted(model, trained)
    tensor: Tensor = "matrix" if _takes_matrix(model, columns) else "columns"
    classes = _classes(model) if trained.output == "probability" else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # converters warn about their own deprecations
        try:
            proto = _skl2onnx(model, columns, tensor, classifier=bool(classes))
        except Exception as error:
            # skl2onnx raises whatever its shape calculators meet; the reason is in the message
            raise InvalidInput(
                f"{kind_of(model)} cannot be converted to ONNX ({type(error).__name__}: {_line(error)}): "
                "see docs/how-to/train-a-model.md for what can"
            ) from error
    return _Onnx(
        onnx=normalise(proto),
        tensor=tensor,
        classes=classes,
        own=lambda frame: _own_predictions(model, frame, trained),
        kind=kind_of(model),
    )


def _skl2onnx(model: Any, columns: Sequence[Column], tensor: Tensor, *, classifier: bool) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    if tensor == "matrix":
        types = [(MATRIX, FloatTensorType([None, len(columns)]))]
    else:
        types = [
            (
                column.name,
                StringTensorType([None, 1])
                if column.dtype is DType.STRING
                else FloatTensorType([None, 1])
                if is_float(column)
                else Int64TensorType([None, 1]),
            )
            for column in columns
        ]
    options = {"zipmap": False} if classifier else None
    return convert_sklearn(model, "model", types, options=options, target_opset=_OPSETS)


def _check_fitted(model: Any, trained: Trained) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        raise InvalidInput(f"{kind_of(model)} is not fitted: call fit before returning it") from None
    if trained.output == "probability" and not hasattr(model, "predict_proba"):
        raise InvalidInput(
            f"{kind_of(model)} gives no probabilities: return a classifier with predict_proba, wrap it in "
            "CalibratedClassifierCV, or say output='value'"
        )
    names = list(getattr(model, "feature_names_in_", ()))
    if names and names != list(trained.inputs):
        raise InvalidInput(
            f"the model was fitted on {', '.join(names)}, but inputs names {', '.join(trained.inputs)}: name the same "
            "columns in the same order"
        )
    width = getattr(model, "n_features_in_", None)
    if width is not None and width != len(trained.inputs):
        raise InvalidInput(f"the model was fitted on {width} columns, but inputs names {len(trained.inputs)}")


def _takes_matrix(model: Any, columns: Sequence[Column]) -> bool:
    """Return whether one tensor will do: only numbers, and no step that picks columns by name."""
    from sklearn.compose import ColumnTransformer

    if not all(column.dtype.numeric for column in columns):
        return False
    parts = [model, *(model.get_params(deep=True).values() if hasattr(model, "get_params") else ())]
    return not any(isinstance(part, ColumnTransformer) for part in parts)


def _own_predictions(model: Any, frame: pl.DataFrame, trained: Trained) -> Array:
    """Return what the estimator itself says about rows, given to it as it was fitted."""
    chosen = frame.select(trained.inputs)
    named = hasattr(model, "feature_names_in_")
    given: Any = chosen if named else chosen.to_numpy()
    try:
        found = model.predict_proba(given) if trained.output == "probability" else model.predict(given)
    except Exception as error:
        # an estimator raises whatever it meets in a row; only its message helps
        raise InvalidInput(
            f"the model cannot score the held-out rows ({type(error).__name__}: {_line(error)}): whatever is done to "
            "the data between ctx.train and fit, fills included, must be a step of the pipeline"
        ) from error
    return np.asarray(found, dtype=np.float64)


def _from_onnx(model: Any, trained: Trained, columns: Sequence[Column], labels: pl.Series) -> _Onnx:
    import onnx

    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
        onnx.checker.check_model(proto)
    except Exception as error:
        # onnx and protobuf raise classes of their own without a common base
        raise InvalidInput(f"the bytes returned are no valid ONNX model: {_line(error)}") from error
    names = [item.name for item in proto.graph.input]
    if names == list(trained.inputs) and len(names) > 1:
        tensor: Tensor = "columns"
    elif len(names) == 1:
        tensor = "matrix" if all(column.dtype.numeric for column in columns) else "columns"
    else:
        raise InvalidInput(
            f"the ONNX model takes {', '.join(names)}: it must take one tensor, or one for each of the inputs "
            f"{', '.join(trained.inputs)} in that order"
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if tensor == "matrix":
        rename_input(copy, MATRIX)
    classes = classes_of(labels) if trained.output == "probability" else ()
    return _Onnx(onnx=normalise(copy), tensor=tensor, classes=classes, own=None, kind="ONNX")


def _from_booster(model: Any, family: str, trained: Trained, columns: Sequence[Column]) -> _Onnx:
    try:
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError:
        raise InvalidInput(
            f"a {family} model needs the package onnxmltools to become ONNX: install it, or return an ONNX model"
        ) from None
    if not all(column.dtype.numeric for column in columns):
        raise InvalidInput(f"a {family} model takes numbers only: encode words in a scikit-learn pipeline")
    types = [(MATRIX, FloatTensorType([None, len(columns)]))]
    options = {"zipmap": False} if trained.output == "probability" else {}
    maker = getattr(onnxmltools, f"convert_{family}")
    try:
        proto = maker(model, initial_types=types, target_opset=_OPSETS[""], **options)
    except Exception as error:
        # converters raise whatever they meet
        raise InvalidInput(f"the {family} model cannot be converted to ONNX: {_line(error)}") from error
    classes = _classes(model) if trained.output == "probability" else ()
    return _Onnx(
        onnx=normalise(proto), tensor="matrix", classes=classes, kind=kind_of(model),
        own=lambda frame: _own_predictions(model, frame, trained),
    )  # fmt: skip


def _classes(model: Any) -> tuple[Label, ...]:
    found = [item.item() if hasattr(item, "item") else item for item in getattr(model, "classes_", ())]
    if len(found) < 2 or not all(isinstance(item, str | int | bool) for item in found):
        raise InvalidInput(
            f"the model knows the classes {found!r:.200}: a label must be text, whole numbers or booleans, two or more"
        )
    return tuple(found)


def predictions(session: Any, frame: pl.DataFrame, columns: Sequence[Column], tensor: Tensor) -> Array:
    """Return what an ONNX session says about the rows, [n, classes] or [n], in FP64."""
    found = np.asarray(session.run(answers_of(session), feed(frame, columns, tensor))[0], dtype=np.float64)
    return found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found


def answers_of(session: Any) -> list[str]:
    """Return the name of the one output that is a model's answer, in a list. Raises InvalidInput without one."""
    floats = [item.name for item in session.get_outputs() if item.type in ("tensor(float)", "tensor(double)")]
    named = [name for name in floats if name in ("probability", "probabilities", "output_probability")]
    if len(named or floats) != 1:
        raise InvalidInput("the ONNX model must give one float tensor of probabilities or values (no ZipMap)")
    return named or floats


def kind_of(model: Any) -> str:
    """Return the name of an estimator with its steps, for people."""
    steps = getattr(model, "steps", None)
    if steps:
        return f"{type(model).__name__}({', '.join(type(step).__name__ for _, step in steps)})"
    return type(model).__name__


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
