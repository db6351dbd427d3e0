# SPDX-License-Identifier: Apache-2.0
"""TLS by the standard library's ssl, with cheroot's adapter.

Answers for the context (TLS 1.2 at least) and for wrapping a socket without waiting for its handshake. The handshake
itself is a step of the connection.

Threading: the context is shared by all connections, which OpenSSL allows.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cheroot.ssl.builtin import BuiltinSSLAdapter

from glancefs.errors import ConfigError


class Tls(BuiltinSSLAdapter):
    """cheroot's adapter for the ssl module, with the handshake left to the connection."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Wrap an accepted socket; nothing is read or sent yet."""
        context: ssl.SSLContext = self.context
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True)
        return wrapped, {}

    def get_environ(self, sock: ssl.SSLSocket) -> dict[str, str]:  # type: ignore[override]  # as its parent really has it
        """Give what an application may know of the connection's TLS."""
        cipher = sock.cipher()
        return {
            "wsgi.url_scheme": "https",
            "HTTPS": "on",
            "SSL_PROTOCOL": sock.version() or "",
            "SSL_CIPHER": cipher[0] if cipher else "",
        }


def load_tls(*, certificate: Path, key: Path | None) -> Tls:
    """Load a certificate (with its chain) and its key from PEM files; without `key` both are in the first.

    Raises ConfigError when they can't be used.
    """
    for file in filter(None, (certificate, key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"The TLS file {file} can't be read: {error.strerror}.") from error
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal.
        tls = Tls(str(certificate), str(key or certificate), private_key_password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(f"The TLS certificate {certificate} and its key can't be used: {error}.") from error
    tls.context.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.context.set_alpn_protocols(["http/1.1"])
    return tls
