# SPDX-License-Identifier: Apache-2.0
"""A mount whose registry is on a database server: it sees what others do, and outlives the server's absence.

Threading: none.
"""

from __future__ import annotations

import pytest

from tests.support.databases import new_server
from tests.support.mounting import Mounts, eventually
from tests.support.processes import product, run

pytestmark = [pytest.mark.e2e, pytest.mark.needs("fuse")]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("postgresql", "mariadb")]
)
def test_a_mount_sees_what_others_do_and_goes_on_after_its_database_was_away(mounts: Mounts, kind: str) -> None:
    server = new_server(kind)
    try:
        server.start()
        env = {"GLANCEFS_REGISTRY": server.fresh()}
        data, source = mounts.folder / "data", mounts.folder / "source"
        source.write_bytes(b"an image" * 1000)
        run([product(), "db", "upgrade", "--data", data], env=env)
        mount = mounts.mount(env=env)
        run([product(), "add", "--data", data, "--name", "from outside", source], env=env)
        eventually((mount / "from outside").exists)
        assert (mount / "from outside").read_bytes() == source.read_bytes()
        server.stop()
        mount.process.wait_for_line("others' changes can't be followed at present: The registry's database ")
        server.start()
        run([product(), "add", "--data", data, "--name", "afterwards", source], env=env)
        eventually((mount / "afterwards").exists)
        mount.run("cp", source, mount / "inside")
        assert "inside" in run([product(), "list", "--data", data], env=env).out
        mounts.end()
    finally:
        server.remove()
