"""Heads of requests that every reader understands in one way. RFC 9112.

Where two programs on the way of a request disagree about its end or its target, one of them can be
made to take a part of it for a request of somebody else ("request smuggling").
"""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]
"""Names are in lower case."""

_OF_UPGRADES = (b"upgrade", b"connection", b"http2-settings")


def check(version: str, headers: Headers) -> None:
    """Section 6.3. Raises ValueError where it is not certain where the body ends."""
    codings, lengths = values(headers, b"transfer-encoding"), values(headers, b"content-length")
    if version not in ("1.0", "1.1"):
        raise ValueError("a version of HTTP that is not spoken")
    if len(lengths) > 1 or (codings and (lengths or version == "1.0")):
        raise ValueError("more than one length")
    if codings and [each.lower() for each in codings] != [b"chunked"]:
        raise ValueError("a coding that is not known")


def origin_form(target: bytes, headers: Headers) -> bytes:
    """Path and query. The form for proxies is taken where it names the same host (section 3.2.2).

    Raises ValueError.
    """
    if target.startswith(b"/"):
        return target
    scheme, _, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    hosts = [each.lower() for each in values(headers, b"host")]
    if scheme.lower() not in (b"http", b"https") or hosts != [authority.lower()]:
        raise ValueError("a target that is not here")
    return slash + path or b"/"


def without_upgrade(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head, as if no other protocol were asked for, which a server may ignore (RFC 9110 7.8).

    Raises ValueError at a tunnel.
    """
    if method == b"CONNECT":
        raise ValueError("no tunnel")
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    lines += [b"%s: %s" % each for each in headers if each[0] not in _OF_UPGRADES]
    return b"\r\n".join([*lines, b"", b""])


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Of all headers of that name."""
    return [value for each, value in headers if each == name]
