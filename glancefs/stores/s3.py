# SPDX-License-Identifier: Apache-2.0
"""S3, and whatever speaks like it, as an object engine.

Answers for calls through boto3, and for the translation of what fails. Large objects are multipart uploads, which the
engine itself keeps out of sight until they are completed.

Threading: may be used by many threads; boto3's client keeps a pool of connections.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import boto3
import botocore.exceptions
import urllib3
from botocore.config import Config

from glancefs.errors import StoreFull
from glancefs.stores.base import Space
from glancefs.stores.objects.engine import EngineError, Found, Part, Refused, Transient, Unfinished
from glancefs.stores.objects.pieces import PieceReader

_CONNECTIONS: Final = 64
"""How many connections are kept open for later."""
_MOST_PARTS: Final = 1000
"""How many parts are asked for at once."""

_ABSENT: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_NO_ROOM: Final = frozenset(
    {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "StorageFull", "EntityTooLarge"}
)
_PASSING: Final = frozenset(
    {"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "BadDigest", "ConditionalRequestConflict"}
)
_SERVER_ERROR: Final = 500
_NOT_IMPLEMENTED: Final = 501
_TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where the bucket is, and how it is spoken to."""

    bucket: str
    endpoint_url: str | None = None
    """None: Amazon's."""
    region: str | None = None
    access_key: str | None = None
    """None, as the secret key: wherever boto3 finds credentials, such as the role of this machine."""
    secret_key: str | None = field(default=None, repr=False)
    path_style: bool = False
    """Whether the bucket is part of the path, not of the host's name."""
    sse: str | None = None
    """``AES256`` or ``aws:kms``: encryption by the engine."""
    sse_key: str | None = None
    """The key's name, for ``aws:kms``."""
    timeout: float = 30.0
    """For how many seconds the engine may be silent."""
    insecure: bool = False
    cacert: str | None = None
    page_size: int = 1000


def make_client(settings: S3Settings) -> Any:  # noqa: ANN401 - boto3 has no types
    """Give boto3's client, which takes a tenth of a second."""
    verify: bool | str | None = settings.cacert
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        verify=False if settings.insecure else verify,
        config=Config(
            connect_timeout=settings.timeout,
            read_timeout=settings.timeout,
            max_pool_connections=_CONNECTIONS,
            # Trying again is ours, the same for every engine.
            retries={"total_max_attempts": 1},
            # Content-MD5 is understood by everything that speaks S3; newer checksums are not.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if settings.path_style else "auto"},
        ),
    )


class S3Engine:
    """One bucket, through a client that `make_client` made for it."""

    has_quotas: Final = False

    def __init__(self, settings: S3Settings, *, client: Any) -> None:  # noqa: ANN401 - boto3 has no types
        self._bucket: Final = settings.bucket
        self._region: Final = settings.region
        self._page_size: Final = settings.page_size
        self._encryption: Final[dict[str, str]] = {}
        if settings.sse is not None:
            self._encryption["ServerSideEncryption"] = settings.sse
        if settings.sse_key is not None:
            self._encryption["SSEKMSKeyId"] = settings.sse_key
        self._client: Final = client

    def prepare(self) -> None:
        """Make the bucket if it is not there, and we may."""
        with _border():
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except botocore.exceptions.ClientError as error:
                if _code(error) not in _ABSENT:
                    raise
            else:
                return
            place = {"LocationConstraint": self._region} if self._region not in {None, "us-east-1"} else None
            options = {"CreateBucketConfiguration": place} if place else {}
            try:
                self._client.create_bucket(Bucket=self._bucket, **options)
            except botocore.exceptions.ClientError as error:
                if _code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def put(self, name: str, data: bytes, *, is_new: bool = False) -> bool:
        """Keep a small object; see `ObjectEngine`."""
        try:
            self._put(name, data, {"IfNoneMatch": "*"} if is_new else {})
        except _Unmet:
            return False
        except _Unknown:
            # An engine that knows no conditions: look, and hope that nobody comes between.
            if self.look(name) is not None:
                return False
            self._put(name, data, {})
        return True

    def _put(self, name: str, data: bytes, options: Mapping[str, str]) -> None:
        with _border():
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=data, ContentMD5=_md5(data), **self._encryption, **options
            )

    def look(self, name: str) -> Found | None:
        """Tell of an object."""
        answer = self._about(self._client.head_object, name)
        if answer is None:
            return None
        now = _date(answer)
        modified: datetime = answer["LastModified"]
        return Found(
            name=name,
            size=answer["ContentLength"],
            modified=modified.isoformat(),
            age=max(0.0, (now - modified).total_seconds()),
        )

    def renew(self, name: str) -> bool:
        """Set an object's time anew, by copying it onto itself; see `ObjectEngine`."""
        source = {"Bucket": self._bucket, "Key": name}
        options = {"CopySource": source, "MetadataDirective": "REPLACE", "Metadata": {}, **self._encryption}
        return self._about(self._client.copy_object, name, **options) is not None

    def read(self, name: str, start: int, stop: int) -> S3Body | None:
        """Give a part of an object."""
        answer = self._about(self._client.get_object, name, Range=f"bytes={start}-{stop - 1}")
        return None if answer is None else S3Body(answer["Body"])

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""
        self._about(self._client.delete_object, name)

    def page(self, prefix: str, after: str) -> Sequence[Found]:
        """Give the next page of a list; see `ObjectEngine`."""
        with _border():
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=self._page_size
            )
        now = _date(answer)
        return [
            Found(
                name=entry["Key"],
                size=entry["Size"],
                modified=entry["LastModified"].isoformat(),
                age=max(0.0, (now - entry["LastModified"]).total_seconds()),
            )
            for entry in answer.get("Contents", ())
        ]

    # Large objects

    def begin(self, name: str) -> str:
        """Begin a multipart upload."""
        with _border():
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=name, **self._encryption)
        return str(answer["UploadId"])

    def put_part(self, name: str, token: str, number: int, data: memoryview) -> Part:
        """Keep one part; the engine refuses it where its MD5 is not ours."""
        with _border():
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=token,
                PartNumber=number,
                Body=PieceReader(data),
                ContentMD5=_md5(data),
            )
        return Part(number=number, size=len(data), etag=answer["ETag"])

    def finish(self, name: str, token: str, parts: Sequence[Part]) -> None:
        """Complete a multipart upload; one that is completed already is fine."""
        made = {"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]}
        options = {"UploadId": token, "MultipartUpload": made}
        if self._about(self._client.complete_multipart_upload, name, **options) is None:
            found = self.look(name)
            if found is None or found.size != sum(part.size for part in parts):
                raise Refused("the upload was taken away", name)

    def discard(self, name: str, token: str) -> None:
        """Abort a multipart upload; one that is not there is fine."""
        self._about(self._client.abort_multipart_upload, name, UploadId=token)

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        """Give the multipart uploads that are neither completed nor aborted."""
        return [
            Unfinished(name=name, token=token, size=self._size_of_parts(name, token))
            for name, token in self._multiparts(prefix)
        ]

    def _multiparts(self, prefix: str) -> Iterator[tuple[str, str]]:
        options: dict[str, str] = {}
        while True:
            with _border():
                answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **options)
            yield from ((upload["Key"], upload["UploadId"]) for upload in answer.get("Uploads", ()))
            if not answer.get("IsTruncated"):
                return
            options = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def _size_of_parts(self, name: str, token: str) -> int:
        size, after, is_more = 0, 0, True
        while is_more:
            options = {"UploadId": token, "PartNumberMarker": after, "MaxParts": _MOST_PARTS}
            answer = self._about(self._client.list_parts, name, **options)
            if answer is None:
                return size
            size += sum(part["Size"] for part in answer.get("Parts", ()))
            is_more, after = answer.get("IsTruncated", False), answer.get("NextPartNumberMarker", 0)
        return size

    def space(self) -> Space | None:
        """Tell nothing: S3 knows no quotas; but see that the bucket can be reached."""
        with _border():
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except botocore.exceptions.ClientError as error:
                # It is made with the first image.
                if _code(error) not in _ABSENT:
                    raise
        return None

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _about(self, work: Callable[..., Mapping[str, Any]], name: str, **options: object) -> Mapping[str, Any] | None:
        """Give what a call about one object gives, None where there is no such object."""
        with _border():
            try:
                return work(Bucket=self._bucket, Key=name, **options)
            except botocore.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise


class S3Body:
    """Bytes on their way out."""

    def __init__(self, body: Any) -> None:  # noqa: ANN401 - botocore has no types
        self._body: Final = body

    def read(self, size: int, /) -> bytes:
        """Give up to so many bytes; nothing at the end. Raises Transient."""
        with _border():
            data: bytes = self._body.read(size)
        return data

    def close(self) -> None:
        """Give the connection back to the pool if all was read, else close it."""
        self._body.close()


class _Unmet(Exception):
    """The condition of a request does not hold."""


class _Unknown(Exception):
    """The engine does not know what is asked for."""


@contextmanager
def _border() -> Iterator[None]:
    """Translate what boto3 raises."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _translated(error) from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise Refused("there are no credentials for it", error) from error
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError) as error:
        raise Transient("it does not answer", error) from error
    except botocore.exceptions.BotoCoreError as error:
        raise Refused("it can't be used as configured", error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Transient("it does not answer", error) from error


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _translated(error: botocore.exceptions.ClientError) -> EngineError | StoreFull | _Unmet | _Unknown:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    translated: EngineError | StoreFull | _Unmet | _Unknown
    if code in {"PreconditionFailed", "412"}:
        translated = _Unmet()
    elif code == "NotImplemented" or status == _NOT_IMPLEMENTED:
        translated = _Unknown(str(error))
    elif code in _NO_ROOM:
        translated = StoreFull("The store has no room for this: its quota is used up, or it takes no part this large.")
    elif code in _PASSING or status >= _SERVER_ERROR or status == _TOO_MANY:
        translated = Transient("it does not answer as it should", error)
    elif code == "NoSuchBucket":
        # Right after it was made, servers that remember what was not there may still say so.
        translated = Transient("its bucket is gone", error)
    else:
        translated = Refused(f"it answers {status or code}", error)
    return translated


def _date(answer: Mapping[str, Any]) -> datetime:
    """Give the engine's present, which it says with every answer."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)


def _md5(data: bytes | memoryview) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
