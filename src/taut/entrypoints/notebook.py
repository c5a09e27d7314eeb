"""The builder's face with what a notebook adds to it: reading, previewing, trying, asking.

Declarations are those of `taut.project`; only their methods reach further up, and only when they are called, so that
a project file that is imported in a job costs nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taut.core.evidence import Scalar
from taut.project import datasets, decorators
from taut.project.pipelines import ATTRIBUTE, FeatureSet, Model

if TYPE_CHECKING:
    import polars as pl

    from taut.entrypoints.client import Client
    from taut.entrypoints.desk import Checked, Tried
    from taut.trust.tls import ClientFiles

F = TypeVar("F", bound=Callable[..., Any])


class Dataset(datasets.Dataset):
    """A named source of records under a contract."""

    def read(self, *, rows: int | None = None) -> pl.DataFrame:
        """Return the rows of the source files that keep the contract, as they would be ingested but not sealed.

        rows: at most so many. Works without an installation; relative paths start at the project's folder.
        """
        from taut.entrypoints.desk import read

        return read(self, rows=rows)[0]

    def check(self) -> Checked:
        """Say how many records of the source files each rule would set aside."""
        from taut.entrypoints.desk import read

        return read(self)[1]


def features(*args: Any, **kwargs: Any) -> Callable[[F], F]:
    """Declare a feature set; see `taut.project.decorators.features`.

    The function stays what it is and gains `.preview(rows=None)`: the feature set computed from the project's files.
    """
    declare = decorators.features(*args, **kwargs)

    def decorate(function: F) -> F:
        declared = declare(function)
        declaration: FeatureSet = getattr(declared, ATTRIBUTE)

        def preview(*, rows: int | None = None) -> pl.DataFrame:
            from taut.entrypoints import desk

            return desk.preview(declaration, rows=rows)

        declared.preview = preview  # type: ignore[attr-defined]  # functions may carry attributes
        return declared

    return decorate


def model(*args: Any, **kwargs: Any) -> Callable[[F], F]:
    """Declare a model; see `taut.project.decorators.model`.

    The function stays what it is and gains `.try_(rows=None, params=None)`: a training on the newest rows of the
    project's files, in this process, and what the held-out part of them says.
    """
    declare = decorators.model(*args, **kwargs)

    def decorate(function: F) -> F:
        declared = declare(function)
        declaration: Model = getattr(declared, ATTRIBUTE)

        def try_(*, rows: int | None = None, params: Mapping[str, Scalar] | None = None) -> Tried:
            from taut.entrypoints import desk

            return desk.try_(declaration, rows=rows, params=params)

        declared.try_ = try_  # type: ignore[attr-defined]  # functions may carry attributes
        return declared

    return decorate


class Session:
    """An open installation: everything that the command line does, as calls. Close it, or use it in a `with`.

    Where no platform runs, it holds the home's lock until it is closed.
    """

    def __init__(
        self, client: Client, home: Path, token: str | None, *, tls: ClientFiles | None = None
    ) -> None:
        self._client: Final = client
        self._home: Final = home
        self._token: Final = token
        self._tls: Final = tls

    def predict(self, endpoint: str, data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Ask an endpoint about one instance or several; returns the answer's JSON."""
        from taut.entrypoints.inputs import instances
        from taut.entrypoints.predicting import predict

        plain = dict(data) if isinstance(data, Mapping) else [dict(item) for item in data]
        rows = instances(plain)
        return predict(self._client, self._home, endpoint, rows, token=self._token, tls=self._tls)

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Carry out an operation, such as `session.call("data.ingest", dataset="flights")`."""
        return self._client.call(operation, request)

    def why(self, id: str) -> dict[str, Any]:
        """Return what something was made from; see `taut why`."""
        return self.call("why.show", id=id)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(  # noqa: A001 - `taut.open` is the name of the face
    home: str | Path = ".taut",
    *,
    url: str | None = None,
    token: str | None = None,
    tls_ca: str | Path | None = None,
    client_cert: str | Path | None = None,
    client_key: str | Path | None = None,
) -> Session:
    """Open the installation in `home`: the platform that runs there, or else in this process.

    url, token: reach the control plane of another installation instead. tls_ca: file of the authority to trust there
    instead of the system's. client_cert, client_key: files of what to show to a server that asks who connects.
    """
    from taut.entrypoints.client import connect
    from taut.entrypoints.reaching import client_files

    folder = Path(home).expanduser().absolute()
    tls = client_files(tls_ca, client_cert, client_key)
    return Session(connect(folder, url=url, token=token, tls=tls), folder, token, tls=tls)
