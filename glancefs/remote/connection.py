# SPDX-License-Identifier: Apache-2.0
"""A server and all that a mount says to it: calls, uploads, and questions for changes.

Answers for asking again what may be asked again: a call that only reads at will, a change under a key by which the
server makes it once, an upload from a file that can be read anew. Nothing is asked for longer than ``timeout`` seconds
without a sign of life. Which calls there are, `glancefs.remote.calls` says.

Threading: may be used from many threads at once; connections are pooled.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from glancefs import errors
from glancefs.client import Client
from glancefs.context import RequestContext
from glancefs.localfile import LocalFile
from glancefs.model import Image
from glancefs.registries.base import Changes
from glancefs.registries.values import Reader, reader_of, to_json
from glancefs.registries.wire import KEY_HEADER, Language, Wire
from glancefs.remote.ahead import Handed
from glancefs.remote.calls import CHANGES_PATH, PREFIX, Greeting, every_call
from glancefs.stores.base import Source
from glancefs.transfer import BLOCK_SIZE, Upload
from glancefs.transport import Credentials, Transport

_CONNECTIONS: Final = 48
_READ_TRIES: Final = 3
_MOST_TRIES: Final = 6
"""How often an upload is sent at the most, whatever the network does."""
_SLOWEST_DISK: Final = 8 << 20
"""Bytes per second: a server syncs everything to its disk before it answers."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0)
"""Before each further try of an upload, in seconds; the last one before all that follow."""

_read_changes: Final[Reader] = reader_of(Changes, is_lenient=True)
_read_image: Final[Reader] = reader_of(Image, is_lenient=True)


class ServerConnection:
    """The way to the server at a URL. Raises InvalidRequest for a URL that names none, or holds a password."""

    def __init__(
        self, *, url: str, credentials: Credentials | None = None, cacert: Path | None = None, timeout: float = 10.0
    ) -> None:
        said = credentials or Credentials()
        self.url: Final = url.rstrip("/")
        self.timeout: Final = timeout
        self._wire: Final = Wire(
            url=url,
            language=Language(prefix=PREFIX, calls=every_call, refusal=_refusal, what="an image server"),
            headers=said.headers(),
            cacert=cacert,
            timeout=timeout,
            connections=_CONNECTIONS,
        )
        self.transport: Final = Transport(
            base=url,
            credentials=said,
            timeout=timeout,
            cacert=cacert,
            connections=_CONNECTIONS,
            ends_dead_ones=True,
        )
        self.client: Final = Client(
            url,
            user=said.user,
            password=said.password,
            token=said.token,
            timeout=timeout,
            cacert=cacert,
            tries=_READ_TRIES,
        )
        """The documented client, for reading data."""
        self._silent_since: float | None = None
        """Since when questions for changes find nobody."""

    @property
    def is_away(self) -> bool:
        """Whether questions for changes have found nobody for longer than anybody waits."""
        since = self._silent_since
        return since is not None and time.monotonic() - since > self.timeout

    def close(self) -> None:
        """Let go of the connections; may be called twice."""
        self._wire.close()
        self.transport.close()
        self.client.close()

    def greet(self) -> Greeting:
        """Ask the server who it is, and who we are.

        Raises ConfigError for what is no server that mounts can use, NotAuthenticated, Unavailable.
        """
        greeting: Greeting = self._wire.call("greeting")
        return greeting

    def call(self, name: str, context: RequestContext, /, **arguments: object) -> Any:  # noqa: ANN401 - the answer is the call's
        """Make a call, submitting the context's lock tokens. Raises what the use case does, and Unavailable."""
        if context.lock_tokens:
            arguments["lock_tokens"] = sorted(context.lock_tokens)
        return self._wire.call(name, **arguments)

    def changes(self, since: int, *, wait: int = 0, limit: int) -> Changes:
        """Give what changed after a revision; with ``wait`` wait for it, for so many seconds. Raises Unavailable."""
        query = urlencode({"since": since, "wait": wait, "limit": limit})
        try:
            response = self.transport.request("GET", f"{CHANGES_PATH}?{query}", answer_within=wait + self.timeout)
            said = self.transport.read_json(response)
        except errors.Unavailable:
            # A server that is restarted is waited for; one that stays away is not, by each call anew.
            self._silent_since = self._silent_since or time.monotonic()
            if self.is_away:
                self._wire.give_up_soon()
            raise
        self._silent_since = None
        try:
            changes: Changes = _read_changes(said["changes"])
        except (KeyError, TypeError, errors.InvalidRequest):
            raise self._strange() from None
        return changes

    def send(
        self,
        name: str,
        context: RequestContext,
        source: Source,
        *,
        size: int,
        ahead: Handed | None = None,
        may_go_on: Callable[[errors.GlancefsError], bool] = lambda _: False,
        **arguments: object,
    ) -> Image:
        """Make a call that brings data, ``size`` bytes of them.

        A `LocalFile` is sent again where the network failed, and where ``may_go_on`` says so of a refusal; where the
        server has the beginning ``ahead``, whatever comes of that. Raises what the use case does, and Unavailable.
        """
        said = {argument: to_json(value) for argument, value in arguments.items()}
        if context.lock_tokens:
            said["lock_tokens"] = sorted(context.lock_tokens)
        key = secrets.token_hex(16)
        give_up, number = float("inf"), 0
        while True:
            began = time.monotonic()
            try:
                if ahead is not None:
                    return self._send_rest(name, said, ahead, size=size, key=key)
                return self._send_once(name, said, source, size=size, key=key, is_repeated=number > 0)
            except errors.GlancefsError as error:
                if ahead is not None and not _is_passing(error):
                    # The server has not made anything of it. What is to be refused, it refuses once more, unread.
                    ahead = None
                    continue
                ahead = None
                if not isinstance(source, LocalFile) or not (_is_passing(error) or (number and may_go_on(error))):
                    raise
                now = time.monotonic()
                # One that was on its way for long had a network; what counts is how long there was none.
                if give_up == float("inf") or now - began > 2 * self.timeout:
                    give_up = now + self.timeout
                pause = _PAUSES[min(number, len(_PAUSES) - 1)]
                number += 1
                if now + pause >= give_up or number == _MOST_TRIES:
                    raise
            time.sleep(pause)

    def _send_rest(self, name: str, said: Mapping[str, object], ahead: Handed, *, size: int, key: str) -> Image:
        with closing(ahead):
            return self._image(ahead.send(name, said, key=key, answer_within=self._patience(size)))

    def _send_once(
        self, name: str, said: Mapping[str, object], source: Source, *, size: int, key: str, is_repeated: bool
    ) -> Image:
        line = json.dumps(said).encode() + b"\n"
        upload = Upload(_framed(line, source), size=len(line) + size)
        headers = {KEY_HEADER: key} | ({"Connection": "close"} if is_repeated else {})
        response = self.transport.request(
            "POST",
            PREFIX + name,
            headers=headers,
            upload=upload,
            is_repeated=is_repeated,
            answer_within=self._patience(size),
        )
        said = self.transport.read_json(response)
        return self._image(said.get("answer") if isinstance(said, dict) else None)

    def _patience(self, size: int) -> float:
        # A server that takes longer is asked again under the same key, and then knows what became of it.
        return self.timeout + size / _SLOWEST_DISK

    def _image(self, said: object) -> Image:
        try:
            image: Image = _read_image(said)
        except (KeyError, TypeError, errors.InvalidRequest):
            raise self._strange() from None
        return image

    def _strange(self) -> errors.Unavailable:
        return errors.Unavailable(f"{self.url} answers with something else than an image server of this version does.")


def _framed(line: bytes, source: Source) -> Iterator[bytes | memoryview]:
    yield line
    if isinstance(source, LocalFile):
        yield from source.pieces(BLOCK_SIZE)
        return
    buffer = memoryview(bytearray(BLOCK_SIZE))
    while count := source.readinto(buffer):
        yield bytes(buffer[:count])


def _is_passing(error: errors.GlancefsError) -> bool:
    """Say whether it is the network, or too much to do, that an upload met with, rather than an answer to it."""
    return type(error) is errors.Unavailable or isinstance(error, errors.UploadTruncated | errors.TooManyUploads)


def _refusal(url: str, error: errors.GlancefsError, is_told: bool) -> errors.GlancefsError:  # noqa: FBT001 - one of a language's functions
    if type(error) is errors.NotFound:
        # What is not found otherwise is an image, a path or a lock.
        is_earlier = "of an earlier version, which serves no mounts; upgrade it first" if is_told else "no image server"
        return errors.ConfigError(f"{url} is {is_earlier}.")
    if type(error) is errors.GlancefsError:
        return errors.Unavailable(f"{url}: {error}")
    return error
