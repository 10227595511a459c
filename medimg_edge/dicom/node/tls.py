"""TLS 1.2 or newer, with certificates on both sides. PS3.15 section B.9 and later (BCP 195)."""

from __future__ import annotations

import ssl

from medimg_edge.dicom.node.settings import TlsFiles
from medimg_edge.errors import NodeError


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For listening: peers show a certificate that one of the authorities signed.

    Raises NodeError.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For sending: the peer's certificate is signed so, and names the host that was asked for.

    Raises NodeError.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(files.ca)
        # An encrypted key must not stop a service to ask for its password.
        context.load_cert_chain(files.cert, files.key, password="")
    except FileNotFoundError as error:
        missing = [str(each) for each in (files.ca, files.cert, files.key) if not each.exists()]
        raise NodeError(f"There is no file {', '.join(missing)}. TLS needs all three.") from error
    except OSError as error:  # ssl.SSLError is one
        raise NodeError(
            f"TLS cannot use {files.cert}, {files.key} and {files.ca} "
            f"({error.strerror or 'unreadable'}). Accepted are PEM files: a certificate, its own "
            "key without a password, and the certificates of the authorities."
        ) from error
    return context
