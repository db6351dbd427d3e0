# SPDX-License-Identifier: Apache-2.0
"""The tree of errors that every floor speaks.

::

    GlancefsError
    ├── InvalidRequest              the caller said something that can't be done as said
    │   ├── InvalidImage            a field of an image has a value it can't have
    │   │   └── InvalidPath         no image can have a name that reads like this path
    │   │       └── PathTooLong
    │   ├── InvalidQuery            a filter, sort key, limit or marker that means nothing
    │   ├── UnsupportedStore        this node has no store of that name
    │   ├── SizeMismatch            the data are shorter or longer than was declared
    │   ├── ChecksumMismatch        the data are not those that were declared
    │   ├── UploadTruncated         the data stopped coming before their end
    │   ├── UploadTooLarge          more data than this node takes
    │   └── AttributesUnsupported   attributes of this kind are not kept
    ├── NotAuthenticated            nobody, or somebody who could not prove it
    ├── Forbidden                   known, but not allowed
    │   └── ProtectedImage          the image refuses removal until it is unprotected
    ├── NotFound
    │   ├── ImageNotFound           no such image, or none that the caller may see
    │   ├── PathNotFound            nothing is at this path, or nothing that the caller may see
    │   ├── AttributeNotFound       the image has no such attribute
    │   └── LockNotFound            there is no lock of this token, or it has expired
    ├── Conflict
    │   ├── Duplicate               the identifier is taken
    │   ├── StaleImage              somebody else changed the image in between
    │   ├── WrongStatus             the image is not in a status that allows this
    │   ├── ImmutableImage          data of an available image never change
    │   ├── AheadLost               what was sent ahead is not here: send all of it
    │   ├── PathTaken               something is at this path already
    │   ├── NotAFolder              a folder is needed, and this is none
    │   ├── IsAFolder               a file is needed, and this is a folder
    │   ├── FolderNotEmpty
    │   └── Locked                  somebody holds a lock on it, and its token was not presented
    ├── HeadersTooLarge             more headers than a request may have
    ├── StoreFull                   no room for the data
    ├── DataMissing                 the registry names data that the store does not have
    ├── Unavailable                 try again later
    │   ├── StoreUnavailable
    │   ├── RegistryUnavailable
    │   └── TooManyUploads          every place for an upload is taken
    └── ConfigError                 the operator's to mend; printed as one line
        └── SchemaTooNew            the database was made by a later version

Answers for the words in which things go wrong and for their texts. Does not know HTTP statuses or errno: each door
translates in one table of its own, looked up along the class's ancestors.

Threading: exceptions are values; nothing here is shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar


class GlancefsError(Exception):
    """Something that glancefs itself refuses or can't do. Its text is one plain sentence for people."""

    code: ClassVar[str] = "glancefs-error"
    """The class's name in kebab case: what goes over the wire and comes back as the same class."""

    def __init_subclass__(cls) -> None:
        # A class that says its code itself goes by the name of another one outside.
        if "code" not in vars(cls):
            cls.code = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()


class InvalidRequest(GlancefsError):
    """The request can't be carried out as it was said; saying it again won't help."""


class InvalidImage(InvalidRequest):
    """A field of an image has a value that it can't have."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidQuery(InvalidRequest):
    """A filter, sort key, limit or marker that means nothing."""


class InvalidPath(InvalidImage):
    """No image can have a name that reads like this path: bytes that are no UTF-8, control characters, a NUL."""


class PathTooLong(InvalidPath):
    """A component, or the whole, is longer than paths can be."""


class UnsupportedStore(InvalidRequest):
    """This node has no store of the wanted name (seed: 400 Bad Request)."""


class SizeMismatch(InvalidRequest):
    """The data are shorter or longer than was declared (seed: 400 Bad Request)."""


class ChecksumMismatch(InvalidRequest):
    """The data do not have the checksum that was declared for them."""


class UploadTruncated(InvalidRequest):
    """The data stopped coming before their declared end: a cut connection, a stalled or killed client."""


class UploadTooLarge(InvalidRequest):
    """More data than this node takes for one image."""


class AttributesUnsupported(InvalidRequest):
    """Extended attributes outside ``user.glance.`` are not kept."""


class NotAuthenticated(GlancefsError):
    """Nobody asks, or somebody who could not prove who they are."""


class Forbidden(GlancefsError):
    """The caller is known and may see the thing, but not do this with it."""


class ProtectedImage(Forbidden):
    """The image refuses removal and replacement until ``protected`` is unset."""


class NotFound(GlancefsError):
    """There is no such thing, or none that the caller may see."""


class ImageNotFound(NotFound):
    """There is no such image, or none that the caller may see."""

    @classmethod
    def by_id(cls, image_id: str) -> ImageNotFound:
        """Give the error for an identifier that leads to nothing."""
        return cls(f"There is no image {image_id!r}.")


class PathNotFound(NotFound):
    """Nothing is at this path, or nothing that the caller may see."""

    @classmethod
    def at(cls, path: str) -> PathNotFound:
        """Give the error for a path that leads to nothing."""
        return cls(f"There is nothing at {path!r}.")


class AttributeNotFound(NotFound):
    """The image has no such attribute."""


class LockNotFound(NotFound):
    """There is no lock of this token that the caller holds, or it has expired."""


class Conflict(GlancefsError):
    """The request contradicts the present state; it may succeed later."""


class Duplicate(Conflict):
    """The identifier is taken, by a present image or by a deleted one."""


class StaleImage(Conflict):
    """The image was changed by somebody else since it was read."""


class WrongStatus(Conflict):
    """The image is not in a status that allows this."""


class ImmutableImage(Conflict):
    """Data of an available image never change."""


class AheadLost(Conflict):
    """What was sent ahead is not here, or not as far as was said; everything has to be sent."""


class PathTaken(Conflict):
    """Something is at this path already."""


class NotAFolder(Conflict):
    """A folder is needed, and this is none."""


class IsAFolder(Conflict):
    """A file is needed, and this is a folder."""


class FolderNotEmpty(Conflict):
    """The folder still holds something that the caller may see."""


class Locked(Conflict):
    """Somebody holds a write lock on it, and its token was not presented (RFC 4918, section 11.3: 423 Locked)."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        """The root of the lock that is in the way, a path of the tree; None where that is not known."""


class HeadersTooLarge(GlancefsError):
    """The headers of a request take more room than they may (seed: 8K limit)."""


class StoreFull(GlancefsError):
    """The store has no room for the data."""


class DataMissing(GlancefsError):
    """The registry names data that the store does not have: damage, never the caller's fault."""


class Unavailable(GlancefsError):
    """A part that is needed does not answer at present."""

    retry_after: ClassVar[int] = 5
    """After how many seconds trying again makes sense."""


class StoreUnavailable(Unavailable):
    """The store does not answer, or answers with errors of its own."""


class RegistryUnavailable(Unavailable):
    """The registry does not answer, or answers with errors of its own."""


class TooManyUploads(Unavailable):
    """Every place for an upload is taken; others still get answers meanwhile."""


class ConfigError(GlancefsError):
    """The configuration, or a file that it names, can't be used."""


class SchemaTooNew(ConfigError):
    """The database was made by a later version of glancefs than this one."""


def every_error(root: type[GlancefsError] = GlancefsError) -> Iterator[type[GlancefsError]]:
    """Walk the whole tree, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


def error_named(code: str) -> type[GlancefsError] | None:
    """Find the class whose ``code`` this is; None for a code that this version does not know."""
    return next((error for error in every_error() if error.code == code), None)
