"""Files in a bucket of S3, or of a server that speaks its language; an optional extra (the package boto3).

An object appears whole when its upload is complete, and is created exclusively by a conditional PUT, which servers must
enforce.  Keys, region and address come from where boto3 looks for them (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``~/.aws``).
"""

import os
import platform
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.digests import digest_of
from storage.errors import StorageError, StoreUnavailableError
from storage.files import Content, Entry, check_exclusive

SCHEME = "s3://"
CACHE_VARIABLE = "PALIMPSEST_CACHE"
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed"})
_PASSING = frozenset({"409", "ConditionalRequestConflict", "429", "SlowDown", "InternalError", "ServiceUnavailable"})
_CONNECT_S, _READ_S = 5.0, 20.0
"""After which a server is taken to be away."""
_AT_ONCE = 16
"""Requests under way at the same time, where many files are wanted."""


class S3Files:
    """Files below a prefix of a bucket; data files, which never change, are kept in a folder of this machine.

    Args:
        location: ``s3://BUCKET/PREFIX``.

    Raises:
        StorageError: boto3 is missing, or the location names no bucket.
    """

    def __init__(self, location: str) -> None:
        self._bucket, _, prefix = location.removeprefix(SCHEME).partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket or not self._prefix:
            raise StorageError(f"{location!r} names no store; expected s3://BUCKET/PREFIX")
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise StorageError(f"{location} needs boto3; run: pip install 'boto3>=1.36'") from error
        settings = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"mode": "standard", "max_attempts": 2},
            max_pool_connections=_AT_ONCE,
        )
        self._client: Any = boto3.client("s3", config=settings)
        kept = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "palimpsest"
        self._cache = Path(kept) / digest_of(self.location)

    @property
    def location(self) -> str:
        return f"{SCHEME}{self._bucket}/{self._prefix}"

    @property
    def folder(self) -> Path:
        return self._cache

    def make(self) -> None:
        """Try whether its server keeps commits exclusive; the bucket must be there, and prefixes are not made."""
        check_exclusive(self)

    def read(self, name: str) -> bytes:
        with self._reached(name):
            found: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
            return found

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        def read(name: str) -> tuple[str, bytes | None]:
            try:
                return name, self.read(name)
            except FileNotFoundError:
                return name, None

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return {name: content for name, content in pool.map(read, names) if content is not None}

    def write(self, name: str, content: Content) -> None:
        with self._reached(name):
            if isinstance(content, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=content)
            else:
                with content.open("rb") as stream:  # by its path, boto3 would wrap what went wrong
                    self._client.upload_fileobj(stream, self._bucket, self._key(name))

    def create(self, name: str, content: Content) -> bool:
        body = content if isinstance(content, bytes) else content.read_bytes()
        try:
            with self._reached(name):
                self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=body, IfNoneMatch="*")
        except FileExistsError:
            # A request whose answer was lost is asked again: the object that is there may be this one.
            return self.read(name) == body
        return True

    def size(self, name: str) -> int | None:
        try:
            with self._reached(name):
                return int(self._client.head_object(Bucket=self._bucket, Key=self._key(name))["ContentLength"])
        except FileNotFoundError:
            return None

    def listing(self, folder: str) -> dict[str, Entry]:
        prefix = self._key(f"{folder}/" if folder else "")
        found: dict[str, Entry] = {}
        with self._reached(folder):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for each in page.get("Contents", ()):
                    name = each["Key"].removeprefix(f"{self._prefix}/")
                    found[name] = Entry(each["Size"], each["LastModified"].timestamp())
        return found

    def delete(self, name: str) -> None:
        with self._reached(name):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def local(self, name: str) -> Path:
        kept = self._cache / name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_name(f"{uuid.uuid4().hex}.part")
            try:
                with self._reached(name):
                    self._client.download_file(self._bucket, self._key(name), str(temporary))
                temporary.replace(kept)
            finally:
                temporary.unlink(missing_ok=True)
        return kept

    def fetch(self, names: Iterable[str]) -> list[Path]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.local, names))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise FileNotFoundError(f"{self.location}/{name}") from error
            if code in _TAKEN:
                raise FileExistsError(f"{self.location}/{name}") from error
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            if code in _PASSING or status >= 500:
                raise self._away(error) from error
            raise StorageError(
                f"the store {self.location} refuses {name or 'a listing'}: {error}; check the bucket's name, and the keys"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageError(
                f"the store {self.location} needs keys, and {platform.node()} has none ({error}); set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY there, on a node of a cluster before `ray start`, or use ~/.aws"
            ) from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            if isinstance(error, (FileNotFoundError, FileExistsError)):
                raise
            raise self._away(error) from error

    def _away(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the store {self.location} does not answer: {error}; what is committed is whole: check its server and "
            "AWS_ENDPOINT_URL, and run the same command again"
        )
