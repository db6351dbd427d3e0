# SPDX-License-Identifier: Apache-2.0
"""Certificates for servers of tests.

Threading: pure but for the files it writes.
"""

import subprocess
from pathlib import Path


def self_signed(folder: Path, *, name: str = "localhost") -> Path:
    """Make a certificate with its key in one PEM file."""
    pem, key = folder / "server.pem", folder / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + key.read_text())
    return pem
