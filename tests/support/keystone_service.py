# SPDX-License-Identifier: Apache-2.0
"""A real Keystone on SQLite, made and served by one process: ``python keystone_service.py FOLDER PORT``.

Answers for a Keystone with nobody in it but its admin, in the seconds that it takes to load: what `keystone-manage`
does in four processes, forks of this one do. Run by an interpreter that has Keystone, which ours has not.

Threading: forks before there are any threads.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

ADMIN_PASSWORD = "password-of-the-tests-admin"

CONFIGURATION = """
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{folder}/keystone.db
[token]
provider = fernet
expiration = {expiration}
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/receipts
[credential]
key_repository = {folder}/credentials
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"""


def manage(configuration: Path, words: Sequence[str]) -> None:
    """Do what a command of keystone-manage does, in a fork."""
    from keystone.cmd import cli  # noqa: PLC0415 - found by another interpreter than the one of the tests

    child = os.fork()
    if not child:
        # It reads its arguments from here, whatever it is handed.
        sys.argv = ["keystone-manage", "--config-file", str(configuration), *words]
        cli.main(sys.argv)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"keystone-manage {words[0]} failed")


def main(folder: Path, port: int, expiration: int) -> None:
    """Make a Keystone, and serve it until a signal."""
    url = f"http://127.0.0.1:{port}/v3"
    for name in ("fernet", "receipts", "credentials"):
        (folder / name).mkdir(mode=0o700)
    configuration = folder / "keystone.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, expiration=expiration))
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(configuration)
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    addresses = [word for kind in ("admin", "public", "internal") for word in (f"--bootstrap-{kind}-url", url)]
    manage(configuration, ["db_sync"])
    manage(configuration, ["fernet_setup", *owner])
    manage(configuration, ["credential_setup", *owner])
    region = ["--bootstrap-region-id", "RegionOne"]
    manage(configuration, ["bootstrap", "--bootstrap-password", ADMIN_PASSWORD, *addresses, *region])
    serve(port)


def serve(port: int) -> None:
    """Answer on a port, and say so."""
    from cheroot.wsgi import Server  # noqa: PLC0415 - found by another interpreter than the one of the tests

    sys.argv = ["keystone"]
    from keystone.wsgi.api import application  # noqa: PLC0415 - it reads its configuration while it is loaded

    server = Server(("127.0.0.1", port), application, numthreads=8)
    server.prepare()
    sys.stdout.write(f"keystone is at http://127.0.0.1:{port}/v3\n")
    sys.stdout.flush()
    server.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
