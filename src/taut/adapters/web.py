"""Web on httpx."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import httpx

from taut.core.errors import Unavailable
from taut.ports.web import WebAnswer

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 1 << 20


class HttpxWeb:
    """A new connection each time: it is asked a few times an hour, and holds nothing open between."""

    def get(self, url: str) -> WebAnswer:
        return self._ask("GET", url, fields=None, basic=None)

    def post(self, url: str, fields: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> WebAnswer:
        return self._ask("POST", url, fields=fields, basic=basic)

    def _ask(
        self, method: str, url: str, *, fields: Mapping[str, str] | None, basic: tuple[str, str] | None
    ) -> WebAnswer:
        end_s, parts, size = time.monotonic() + _TIMEOUT_S, [], 0
        data = None if fields is None else dict(fields)
        auth = None if basic is None else httpx.BasicAuth(*basic)
        try:
            with (
                httpx.Client(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
                client.stream(
                    method, url, data=data, auth=auth, headers={"accept": "application/json"}
                ) as answer,
            ):
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > _MAX_BYTES or time.monotonic() > end_s:
                        raise Unavailable(
                            f"{url} sends more than {_MAX_BYTES} bytes, or too slowly: check it"
                        )
                    parts.append(part)
                return WebAnswer(status=answer.status_code, body=b"".join(parts))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"{url} does not answer ({said}): check it, and try again") from error
