# SPDX-License-Identifier: Apache-2.0
"""The ways in which people put images in and get them out: curl, the Python client, the command line.

Answers for doing it as they would. Does not compare anything.

Threading: a way belongs to one test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from glancefs.client import Client
from tests.support.processes import Argument, product, run
from tests.support.servers import RunningServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How an image goes in under a name and a type (giving its id), and how it comes out into a file."""

    put: Callable[[RunningServer, Path, str, str], str]
    get: Callable[[RunningServer, str, Path], object]


def curl(server: RunningServer, *words: Argument) -> str:
    """Ask with curl, which fails where the server does not answer with success."""
    trust: list[Argument] = ["--cacert", server.trust] if server.trust else []
    return run(["curl", "--silent", "--show-error", "--fail", *trust, *words]).out


def _put_by_curl(server: RunningServer, file: Path, name: str, kind: str) -> str:
    # To a URL with a slash at its end curl adds the name of the file.
    meta = ["-H", f"x-image-meta-name: {name}", "-H", f"x-image-meta-type: {kind}"]
    answer = curl(server, "-X", "POST", "-T", file, *meta, f"{server.url}/images")
    return str(json.loads(answer)["image"]["id"])


def _get_by_curl(server: RunningServer, image_id: str, file: Path) -> object:
    return curl(server, "-o", file, f"{server.url}/images/{image_id}")


def _put_by_client(server: RunningServer, file: Path, name: str, kind: str) -> str:
    with Client(server.url, cacert=server.trust) as client, file.open("rb") as data:
        return str(client.add_image({"name": name, "type": kind}, data)["id"])


def _get_by_client(server: RunningServer, image_id: str, file: Path) -> object:
    with Client(server.url, cacert=server.trust) as client, file.open("wb") as into:
        _, chunks = client.get_image(image_id)
        return [into.write(chunk) for chunk in chunks]


def by_url(server: RunningServer) -> Mapping[str, str]:
    """What lets the command line speak to a server."""
    trust = {"GLANCEFS_CACERT": str(server.trust)} if server.trust else {}
    return {"GLANCEFS_URL": server.url} | trust


def by_folder(server: RunningServer) -> Mapping[str, str]:
    """What lets the command line work on a data folder itself."""
    return {"GLANCEFS_DATA": str(server.data)}


def _command_line(where: Callable[[RunningServer], Mapping[str, str]]) -> Way:
    def put(server: RunningServer, file: Path, name: str, kind: str) -> str:
        words: list[Argument] = [product(), "add", file, "--name", name, "--type", kind, "--json"]
        said = json.loads(run(words, env=where(server)).out)
        image = said[0] if isinstance(said, list) else said
        return str(image["id"])

    def get(server: RunningServer, image_id: str, file: Path) -> object:
        return run([product(), "get", image_id, "-o", file], env=where(server))

    return Way(put=put, get=get)


WAYS: Mapping[str, Way] = {
    "curl": Way(put=_put_by_curl, get=_get_by_curl),
    "client": Way(put=_put_by_client, get=_get_by_client),
    "command line by URL": _command_line(by_url),
    "command line on the folder": _command_line(by_folder),
}
