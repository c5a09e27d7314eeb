"""Compressed request bodies: inflated within the bound of any body, so that a small one cannot become a large one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

from taut.serving.errors import Malformed, TooLarge, UnsupportedEncoding

_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_WINDOW_BYTES: Final = 8 * 2**20
_FREE_BYTES: Final = 2**20
_MAX_RATIO: Final = 100  # rows as JSON shrink 3 to 20 times; what grows more is not worth the loop's time


def inflated(headers: Mapping[bytes, bytes], body: bytes, max_bytes: int) -> bytes:
    """Return the body as its sender had it before he compressed it.

    Raises UnsupportedEncoding for any other encoding than one of `gzip`, `deflate` and `zstd`; Malformed for a body that
    is not in its encoding, whole and alone; TooLarge as soon as there are more than `max_bytes`, or more than a bomb has
    any need of, of which no more are made.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return body
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    inflate = _INFLATE.get(name)
    if inflate is None:
        raise UnsupportedEncoding(
            f"content-encoding {encoding[:40].decode('latin-1')!r} is not read here: send one of gzip, deflate and zstd, or "
            "the body as it is"
        )
    limit = min(max_bytes, max(_FREE_BYTES, _MAX_RATIO * len(body)))
    data = inflate(body, limit + 1)
    if len(data) > limit:
        raise TooLarge(
            f"the body is larger than {limit} bytes when inflated"
            + ("" if limit == max_bytes else f", {_MAX_RATIO} times what was sent")
            + ": send fewer rows at once"
        )
    return data


def _by_zlib(name: str, bits: int) -> Callable[[bytes, int], bytes]:
    def inflate(body: bytes, limit: int) -> bytes:
        machine = zlib.decompressobj(bits)
        try:
            data = machine.decompress(body, limit)
        except zlib.error as error:
            raise Malformed(f"the body is no {name}: {error}") from None
        if len(data) < limit and (not machine.eof or machine.unused_data):
            said = "goes on after its end" if machine.eof else "ends before its end"
            raise Malformed(f"the body {said} as {name}: send one whole stream")
        return data

    return inflate


def _by_zstd(body: bytes, limit: int) -> bytes:
    # on use: few clients send it, and every gateway would hold the library
    import zstandard

    machine = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    try:
        with machine.stream_reader(
            body, read_across_frames=False
        ) as reader:  # bounded, and silent about the end
            data: bytes = reader.read(limit)
        if len(data) == limit:
            return data
        frame = machine.decompressobj()  # unbounded, and says how it ended: known to be small by now
        data = frame.decompress(body)
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is no zstd: {error}") from None
    if not frame.eof or frame.unused_data:
        said = "goes on after its end" if frame.eof else "ends before its end"
        raise Malformed(f"the body {said} as zstd: send one whole frame")
    return data


_INFLATE: Final[dict[bytes, Callable[[bytes, int], bytes]]] = {
    b"gzip": _by_zlib("gzip", _GZIP_BITS), b"x-gzip": _by_zlib("gzip", _GZIP_BITS),
    b"deflate": _by_zlib("deflate", zlib.MAX_WBITS), b"zstd": _by_zstd,
}  # fmt: skip
