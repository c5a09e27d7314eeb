"""Sealing: AES-256-GCM under a key per person and column.

A sealed value is `tsl1.PSEUDONYM.BODY`: 22 characters that name the person's key without naming the person, and base64
of key id (6 bytes), nonce (12), ciphertext and tag (16). The column's key is HKDF-Expand (RFC 5869, SHA-256) of the
person's key with dataset and column as info. The nonce is random: a column's key encrypts one column of one person,
far below the 2**32 values at which random 96-bit nonces stop being safe (NIST SP 800-38D, 8.3). Dataset, column,
pseudonym and key id are authenticated with the value, so that none can be moved to another place.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Final, NamedTuple

import msgspec
import polars as pl
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taut.core.errors import Corrupt, InvalidInput
from taut.core.schema import DType
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx
from taut.ports.world import Clock, Random
from taut.project.manifest import PersonalHandling
from taut.trust.envelope import KEY_ID_BYTES, Keyring, SubjectKey, TenantKeys
from taut.trust.sealing.masks import Masks, redact_values
from taut.trust.sealing.plain import from_plain, subject_text, to_plain

SEALED_PREFIX: Final = "tsl1."
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = KEY_ID_BYTES + _NONCE_BYTES


class Unsealed(msgspec.Struct, frozen=True, kw_only=True):
    """A frame with plain values, and how many values are null because their person was forgotten."""

    frame: pl.DataFrame
    forgotten: int


class _Cipher(NamedTuple):
    """One person's cipher for one column."""

    aes: AESGCM
    key_id: bytes
    aad: bytes


class Sealer(Masks):
    """Seals, unseals and forgets; and masks by pseudonym or token (see `Masks`).

    records: read by `unseal` when no transaction is given. installation: keys for what is of no person. Keys are read anew in each call, so that a person who was
    forgotten by another process is forgotten here at once.
    """

    def __init__(self, records: Records, keys: Keys, random: Random, clock: Clock) -> None:
        self._records = records
        self._random = random
        self._keyring = Keyring(keys, random, clock)
        super().__init__(self._keyring)

    def protect(
        self,
        tx: Tx,
        *,
        dataset: str,
        frame: pl.DataFrame,
        handling: Mapping[str, PersonalHandling],
        subject: str | None = None,
    ) -> pl.DataFrame:
        """Return `frame` with each column as the contract's word says: seal, redact, tokenise, pseudonymise or keep.

        subject: the column that names each row's person, asked for when a column is sealed; it is read before it is
        masked itself. Sealed, tokenised and pseudonymised columns become text.
        """
        _columns(frame, handling)
        sealed = [column for column, word in handling.items() if word == "seal"]
        if sealed and subject is None:
            raise InvalidInput(
                f"column {sealed[0]!r} is to be sealed, but the dataset names no subject: declare one"
            )
        masked = frame
        if subject is not None:
            masked = self.seal(tx, dataset=dataset, frame=frame, subject=subject, columns=sealed)
        for column, word in handling.items():
            series = frame.get_column(column)
            match word:
                case "redact":
                    masked = masked.with_columns(redact_values(series))
                case "tokenise":
                    masked = masked.with_columns(self.tokenise(tx, series, dataset=dataset))
                case "pseudonymise":
                    masked = masked.with_columns(self.pseudonymise(tx, series, dataset=dataset))
                case "seal" | "keep":
                    pass
        return masked

    def seal(
        self, tx: Tx, *, dataset: str, frame: pl.DataFrame, subject: str, columns: Iterable[str]
    ) -> pl.DataFrame:
        """Return `frame` with `columns` sealed for the person that each row's `subject` names; nulls stay null.

        Keys of new persons are made in `tx`. The subject column itself may be among `columns`.
        Raises InvalidInput when a row with a value names nobody.
        """
        wanted = _columns(frame, columns)
        people = subject_text(frame.get_column(subject))
        if not frame.height:
            return frame.with_columns(pl.col(wanted).cast(pl.String))
        _check_named(frame, people, wanted)
        pseudonyms = self._keyring.pseudonyms(tx, people.drop_nulls().unique().to_list(), create=True)
        keys = self._keyring.subject_keys(tx, pseudonyms.values())
        missing = [pseudonym for pseudonym in pseudonyms.values() if pseudonym not in keys]
        keys.update(self._keyring.make_subject_keys(tx, missing))
        rows = [pseudonyms.get(person) for person in people.to_list()]
        return frame.with_columns(
            self._seal_column(frame.get_column(column), rows, _ciphers(keys, dataset, column))
            for column in wanted
        )

    def _seal_column(
        self, series: pl.Series, rows: Sequence[str | None], ciphers: Mapping[str, _Cipher]
    ) -> pl.Series:
        nonces = self._random.bytes(_NONCE_BYTES * len(series))
        bodies: list[bytes | None] = []
        add = bodies.append
        start = 0
        for value, pseudonym in zip(to_plain(series), rows, strict=True):
            if value is None or pseudonym is None:
                add(None)
                continue
            aes, id_, aad = ciphers[pseudonym]
            nonce = nonces[start : start + _NONCE_BYTES]
            start += _NONCE_BYTES
            add(id_ + nonce + aes.encrypt(nonce, value, aad))
        parts = pl.DataFrame(
            {"who": rows, "body": bodies}, schema={"who": pl.String, "body": pl.Binary}
        ).select(
            pl.concat_str(pl.lit(SEALED_PREFIX), "who", pl.lit("."), pl.col("body").bin.encode("base64"))
        )
        return parts.to_series().alias(series.name)

    def unseal(
        self,
        frame: pl.DataFrame,
        *,
        dataset: str,
        columns: Iterable[str],
        subject: str | None = None,
        dtypes: Mapping[str, DType] | None = None,
        tx: Tx | None = None,
    ) -> Unsealed:
        """Return `frame` with the plain values of `columns`, null for persons without a key, and how many those are.

        subject: the plain column that names each row's person; with it a value that was moved to another person's row
        is refused. dtypes: what to return where every value is null. tx: read keys there, not in a transaction of its
        own.
        Raises Corrupt when a value was changed, moved to another column or dataset, or was never sealed.
        """
        wanted = _columns(frame, columns)
        parts = {column: _split(frame.get_column(column)) for column in wanted}
        people: set[str] = set()
        for part in parts.values():
            people.update(part.get_column("who").drop_nulls().unique().to_list())
        with nullcontext(tx) if tx is not None else self._records.read() as reading:
            keys = self._keyring.subject_keys(reading, people)
            if subject is not None:
                self._check_owners(reading, subject_text(frame.get_column(subject)), parts)
        forgotten = 0
        plain = []
        for column, part in parts.items():
            values, lost = _open_column(part, _ciphers(keys, dataset, column), column)
            plain.append(from_plain(values, name=column, dtype=(dtypes or {}).get(column)))
            forgotten += lost
        return Unsealed(frame=frame.with_columns(plain), forgotten=forgotten)

    @property
    def tenant(self) -> TenantKeys:
        """The key that wraps persons' keys: rotated and re-wrapped there."""
        return self._keyring.tenant

    def _check_owners(self, tx: Tx, people: pl.Series, parts: Mapping[str, pl.DataFrame]) -> None:
        names = people.drop_nulls().unique().to_list()
        pseudonyms = self._keyring.pseudonyms(tx, names, create=False)
        expected = pl.Series([pseudonyms.get(person) for person in people.to_list()], dtype=pl.String)
        for column, part in parts.items():
            who = part.get_column("who")
            moved = (who.is_not_null() & who.ne_missing(expected)).arg_true()
            if len(moved):
                raise Corrupt(
                    f"row {moved[0]} of column {column!r} holds a value sealed for another person: restore it"
                )

    def forget(self, tx: Tx, subject: str) -> bool:
        """Destroy a person's key, and with it every value sealed under it; say whether there was one.

        Whoever kept a copy of the wrapped key and has the installation's keys could still read: see the page on keys.
        """
        pseudonym = self._keyring.pseudonyms(tx, [subject], create=False).get(subject)
        return pseudonym is not None and self._keyring.forget(tx, pseudonym)

    def sealed_prefix(self, tx: Tx, subject: str) -> str | None:
        """Return what every value sealed for a person begins with, to find rows; None when nothing was ever sealed."""
        pseudonym = self._keyring.pseudonyms(tx, [subject], create=False).get(subject)
        return None if pseudonym is None else f"{SEALED_PREFIX}{pseudonym}."


def _columns(frame: pl.DataFrame, columns: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(columns))
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise InvalidInput(f"no column {missing[0]!r} to seal: the frame has {', '.join(frame.columns)}")
    return wanted


def _check_named(frame: pl.DataFrame, people: pl.Series, columns: Sequence[str]) -> None:
    nobody = people.is_null()
    if not nobody.any():
        return
    held = frame.select(pl.any_horizontal(pl.col(columns).is_not_null())).to_series()
    lost = (nobody & held).arg_true()
    if len(lost):
        raise InvalidInput(
            f"{len(lost)} rows have personal values but no subject, the first is row {lost[0]}: fill column "
            f"{people.name!r} or quarantine them"
        )


def _ciphers(keys: Mapping[str, SubjectKey], dataset: str, column: str) -> dict[str, _Cipher]:
    place = _length_first(dataset) + _length_first(column)
    head = b"taut/seal/1" + place
    info = head + b"\x01"  # the counter of HKDF-Expand's first and only block
    made = {}
    for pseudonym, (key, id_) in keys.items():
        aad = head + pseudonym.encode() + id_
        made[pseudonym] = _Cipher(AESGCM(hmac.digest(key, info, "sha256")), id_, aad)
    return made


def _length_first(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def _split(series: pl.Series) -> pl.DataFrame:
    """Return columns `who` and `body` (bytes) of sealed values; null for null."""
    if series.dtype not in (pl.String, pl.Null):
        raise Corrupt(f"column {series.name!r} is {series.dtype}: it was never sealed")
    text = series.cast(pl.String).alias("text")
    length = len(SEALED_PREFIX) + 22
    parts = pl.DataFrame(text).with_columns(
        who=pl.col("text").str.slice(len(SEALED_PREFIX), 22),
        body=pl.col("text").str.slice(length + 1).str.decode("base64", strict=False),
        whole=pl.col("text").str.starts_with(SEALED_PREFIX) & (pl.col("text").str.slice(length, 1) == "."),
    )
    # base64 that decodes to fewer bytes than a head and a tag cannot be one of ours either
    whole = pl.col("whole") & pl.col("body").is_not_null() & (pl.col("body").bin.size() >= _HEAD_BYTES + 16)
    bad = (
        parts.select((pl.col("text").is_not_null() & ~whole.fill_null(False)).alias("bad"))
        .to_series()
        .arg_true()
    )
    if len(bad):
        raise Corrupt(f"row {bad[0]} of column {series.name!r} is no sealed value: restore the data")
    return parts.select("who", "body")


def _open_column(
    part: pl.DataFrame, ciphers: Mapping[str, _Cipher], column: str
) -> tuple[list[bytes | None], int]:
    values: list[bytes | None] = []
    add = values.append
    forgotten = 0
    for row, (who, body) in enumerate(part.iter_rows()):
        if who is None:
            add(None)
            continue
        cipher = ciphers.get(who)
        if cipher is None or cipher.key_id != body[:KEY_ID_BYTES]:
            forgotten += 1
            add(None)
            continue
        try:
            add(cipher.aes.decrypt(body[KEY_ID_BYTES:_HEAD_BYTES], body[_HEAD_BYTES:], cipher.aad))
        except InvalidTag as error:
            raise Corrupt(
                f"row {row} of column {column!r} does not open: it was changed, or belongs to another column or dataset"
            ) from error
    return values, forgotten
