# SPDX-License-Identifier: Apache-2.0
"""One file on its way to be an image: written in any order, read back, hashed beside.

Answers for the bytes of one staged file and for their checksum at the end. Does not decide when it becomes an image:
`glancefs.tree` does.

Threading: every method may be called from many threads; writes are not held up by hashing.
"""
class StagedUpload:
    """A staged file. Made by `Staging.create`, `Staging.recover`; tree hands it out (create, stage).

    Attributes (read-only properties unless said):
    key: str               stable text, unique among all staged files of all mounts; names its inode (`Entry.key` is "staged:KEY")
    path: str              where this mount shows it ('' components never); the tree moves it on rename
    said: Said             what xattrs said so far (tree sets it through `say(said)`, which rewrites the sidecar)
    state: StagedState
    replaces: Image|None   the available image whose place it takes (O_TRUNC on an image)
    queued: Image|None     the queued image whose data this is to be
    image: Image|None      what it became (state PUBLISHED)
    size: int              bytes, from memory (no syscall)
    is_written: bool       whether a byte was ever written into it (truncate alone does not count)
    mtime_ns: int          property mtime if said, else the last write
    fileno: int            descriptor of the local file, valid until close(); for preadv/RWF_NOWAIT and sendfile. Also after publishing.
    """
    def write_at(self, offset: int, data: bytes | memoryview) -> int:
      """All of it. StoreFull, UploadTooLarge, ImmutableImage (published), StoreUnavailable."""

    def truncate(self, size: int) -> None:
      """Holes stay holes. StoreFull, UploadTooLarge, ImmutableImage."""

    def read_at(self, offset: int, size: int) -> bytes:
      """Short only at the end."""

    def allocated(self) -> int:
      """Bytes on disk (fstat)."""

    def fsync(self) -> None:
      """Sync data and sidecar; publishes nothing. StoreFull, StoreUnavailable."""

    def close(self) -> None:
      """Let go of the descriptor; the tree calls it at discard/close. fuse holds its own count of handles and calls `tree.release(staged)`."""

