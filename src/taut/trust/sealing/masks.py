"""Masks that need no person: pseudonyms that keep joins, tokens that can be taken back, redaction; and the dispatch."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

import polars as pl
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from taut.core.errors import Corrupt, NotFound
from taut.core.schema import DType
from taut.ports.records import Tx
from taut.trust.envelope import KEY_BYTES, Keyring, mac_text
from taut.trust.sealing.plain import as_text, from_plain, to_plain

PSEUDONYM_PREFIX: Final = "tps1."
TOKEN_PREFIX: Final = "ttk1."  # noqa: S105 - marks a tokenised value, it is no password
REDACTED: Final = "[redacted]"
_SIV_KEY_BYTES: Final = 64


class Masks:
    """Deterministic masks under keys of a dataset: equal values give equal masks, also in later batches.

    Determinism is their use and their weakness: who sees the masks sees which rows share a value and how often it
    occurs. For anything rarer than a category, or when a person must be forgotten, seal instead.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def pseudonymise(self, tx: Tx, series: pl.Series, *, dataset: str) -> pl.Series:
        """Return `tps1.` and HMAC-SHA256 (128 bits) of each value, one way; nulls stay null.

        The same value gives the same pseudonym in every column of one dataset, whether written as text or integer.
        """
        key = self._keyring.data_key(
            tx, f"pseudonymise/{dataset}", size=KEY_BYTES, purpose="data", create=True
        )
        assert key is not None, "made on first use"
        return _map_unique(
            as_text(_one_zero(series)), lambda text: PSEUDONYM_PREFIX + mac_text(key, text.encode())
        )

    def tokenise(self, tx: Tx, series: pl.Series, *, dataset: str) -> pl.Series:
        """Return `ttk1.` and AES-256-SIV (RFC 5297) of each value, bound to dataset and the series' name."""
        key = self._keyring.data_key(
            tx, f"tokenise/{dataset}", size=_SIV_KEY_BYTES, purpose="data", create=True
        )
        assert key is not None, "made on first use"
        cipher, place = AESSIV(key), _place(dataset, series.name)
        series = _one_zero(series)
        unique = series.gather(as_text(series).arg_unique())  # by text: what differs beyond it has one token
        tokens = [
            None if value is None else TOKEN_PREFIX + _b64(cipher.encrypt(value, place))
            for value in to_plain(unique)
        ]
        return as_text(series).replace_strict(
            as_text(unique), pl.Series(tokens, dtype=pl.String), return_dtype=pl.String
        )

    def detokenise(self, tx: Tx, series: pl.Series, *, dataset: str, dtype: DType | None = None) -> pl.Series:
        """Return the values behind tokens. Raises Corrupt on a changed or foreign token, NotFound without its key."""
        key = self._keyring.data_key(
            tx, f"tokenise/{dataset}", size=_SIV_KEY_BYTES, purpose="data", create=False
        )
        if key is None:
            raise NotFound(
                f"nothing of dataset {dataset!r} was ever tokenised here: check the dataset's name"
            )
        cipher, place = AESSIV(key), _place(dataset, series.name)
        known: dict[str | None, bytes | None] = {None: None}
        for token in series.drop_nulls().unique().to_list():
            known[token] = _open_token(cipher, token, place, series.name)
        return from_plain([known[token] for token in series.to_list()], name=series.name, dtype=dtype)


def redact_values(series: pl.Series) -> pl.Series:
    """Return `[redacted]` for each text that is there, and null for values of any other type."""
    if series.dtype == pl.String:
        return pl.select(pl.when(series.is_not_null()).then(pl.lit(REDACTED)).alias(series.name)).to_series()
    return pl.Series(series.name, [None], dtype=series.dtype).new_from_index(0, len(series))


def _one_zero(series: pl.Series) -> pl.Series:
    """Return floats with -0.0 as 0.0: they are equal, and must have one mask though their texts differ."""
    if not series.dtype.is_float():
        return series
    return series.abs().zip_with(series == 0, series)  # Polars leaves `+ 0.0` out


def _map_unique(text: pl.Series, mask: Callable[[str], str]) -> pl.Series:
    unique = text.drop_nulls().unique()
    masks = pl.Series([mask(value) for value in unique.to_list()], dtype=pl.String)
    return text.replace_strict(unique, masks, default=None, return_dtype=pl.String)


def _open_token(cipher: AESSIV, token: str, place: list[bytes], name: str) -> bytes:
    try:
        body = base64.b64decode(token.removeprefix(TOKEN_PREFIX), altchars=b"-_", validate=True)
        if token.startswith(TOKEN_PREFIX):
            return cipher.decrypt(body, place)
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise Corrupt(
            f"a token in column {name!r} was changed or belongs elsewhere: restore the data"
        ) from error
    raise Corrupt(f"column {name!r} holds a value that is no token: restore the data")


def _place(dataset: str, column: str) -> list[bytes]:
    return [b"taut/tokenise/1", dataset.encode(), column.encode()]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
