"""Requests to an object store: the client, deadlines, tries, and what a failure means.

The client's own retries are off: it does not retry an answer that broke off half way, and it retries what is of no use.
Here every request is tried `storage.s3_attempts` times where its failure may pass (no connection, no answer in time,
half an answer, 5xx, 429), after pauses of random length that grow up to two seconds; what another try cannot cure
(credentials, a missing bucket) is told at once. All that fails is Unavailable, in words that say what to do.

Deadlines: `storage.s3_timeout_seconds` to connect, between octets and for an answer, plus the time that its octets take
on a slow line. At most `storage.s3_connections` requests are under way; the others wait, for half a minute at most.
Probes have a connection of their own, so that a store that is busy is not taken for one that does not answer.

What is sent is signed with its digest, which is made in a thread where it is much.

The package is large, so it is imported when a request is made; `prepare` does that beforehand, and reads the package's
data, for a process that will not be able to read them later.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from storage.aside import aside
from storage.blobs import BlobCounts
from storage.errors import BlobsUnavailable, NotFound

if TYPE_CHECKING:
    from config.schema import StorageConfig

_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 2.0
_WAIT_SECONDS = 30.0
_SLOWEST = 256 * 1024
"""Octets a second that a line must carry."""

_PASSING = frozenset(
    {
        "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
        "ThrottlingException", "TooManyRequestsException", "BandwidthLimitExceeded", "RequestLimitExceeded",
    }
)  # fmt: skip
_CREDENTIALS = frozenset(
    {
        "403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "Forbidden", "InvalidAccessKeyId",
        "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
    }
)  # fmt: skip
_ABSENT_OBJECT = frozenset({"NoSuchKey", "404", "NotFound"})
_WRONG_REGION = frozenset(
    {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


_DIGEST = "pillarbox_sha256"


class S3Error(BlobsUnavailable):
    """The object store refused a request; code is its own word for it, "" where it did not answer."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def prepare() -> None:
    """Imports the client and reads its data, for this process and those that are forked from it."""
    from config.schema import StorageConfig

    async def connect() -> None:
        config = StorageConfig(s3_region="us-east-1", s3_access_key_id="x", s3_secret_access_key="x")
        requests = Requests(config, "bucket", BlobCounts())
        try:
            await requests.connected()
        finally:
            await requests.close()

    asyncio.run(connect())


@functools.cache
def _loader() -> Any:
    """The package's descriptions of services, which it reads once."""
    from botocore.loaders import create_loader

    return create_loader()


class Requests:
    """The requests of one process to one bucket."""

    def __init__(self, config: StorageConfig, bucket: str, counts: BlobCounts) -> None:
        self._config = config
        self._bucket = bucket
        self._counts = counts
        self._slots = asyncio.Semaphore(config.s3_connections)
        self._probing = asyncio.Semaphore()
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._open = AsyncExitStack()

    async def close(self) -> None:
        await self._open.aclose()

    async def send(self, operation: str, *, octets: int = 0, attempts: int | None = None, **params: Any) -> Any:
        """The answer to one operation, its body read. octets: how many are sent. NotFound; S3Error."""
        return await self._send(self._slots, operation, octets, attempts or self._config.s3_attempts, params)

    async def probe(self, operation: str, **params: Any) -> None:
        """Sees, in one try, whether the store carries out an operation. S3Error."""
        await self._send(self._probing, operation, 0, 1, params)

    async def _send(
        self, slots: asyncio.Semaphore, operation: str, octets: int, attempts: int, params: dict[str, Any]
    ) -> Any:
        for attempt in range(1, attempts + 1):
            try:
                async with _slot(slots):
                    return await self._once(operation, octets, params)
            except Exception as error:
                if _is_absent(operation, error):
                    raise NotFound(f"no such object: {params.get('Key')}") from None
                if not _is_expected(error):
                    raise
                self._counts.errors[operation] += 1
                if attempt == attempts or not _may_pass(error):
                    raise self.failure(operation, error) from error
            await asyncio.sleep(random.uniform(0, min(_LAST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempt)))
        raise AssertionError("not reached")

    async def _once(self, operation: str, octets: int, params: dict[str, Any]) -> Any:
        client = await self.connected()
        self._counts.requests[operation] += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience(octets)) as deadline:
                answer = await getattr(client, operation)(Bucket=self._bucket, **params)
                if "Body" in answer:
                    more = self._patience(answer.get("ContentLength", 0))
                    deadline.reschedule(asyncio.get_running_loop().time() + more)
                    answer["Body"] = await _read(answer["Body"])
                return answer
        finally:
            self._counts.seconds[operation] += time.monotonic() - began

    def _patience(self, octets: int) -> float:
        return self._config.s3_timeout_seconds + octets / _SLOWEST

    # The client -------------------------------------------------------------------------------------------------------

    async def connected(self) -> Any:
        """The client; nothing is sent yet."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._connect()
        return self._client

    async def _connect(self) -> Any:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import AioSession

        for name in ("aiobotocore", "botocore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # below it they log requests, contents included
        config, secret = self._config, self._config.s3_secret_access_key
        path_style = config.s3_path_style
        if path_style is None:
            path_style = config.s3_endpoint_url is not None
        _sign_with_digests()
        session = AioSession()
        session.register_component("data_loader", _loader())
        client = session.create_client(
            "s3",
            endpoint_url=config.s3_endpoint_url,
            region_name=config.s3_region or _region_of_environment(session),
            aws_access_key_id=config.s3_access_key_id,
            aws_secret_access_key=secret.reveal() if secret is not None else None,
            verify=_certificates(),
            config=AioConfig(
                connect_timeout=config.s3_timeout_seconds,
                read_timeout=config.s3_timeout_seconds,
                max_pool_connections=config.s3_connections + 1,  # of the probe
                retries={"total_max_attempts": 1, "mode": "standard"},
                # The server checks what it stores against the digest that we signed.
                s3={"addressing_style": "path" if path_style else "auto", "payload_signing_enabled": True},
                # Checksums in trailers are not known to every store.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_appid="pillarbox",
            ),
        )
        entered = await self._open.enter_async_context(client)
        entered.meta.events.register("before-sign.s3", _add_digest)
        return entered

    # What failures mean -----------------------------------------------------------------------------------------------

    def failure(self, operation: str, error: Exception) -> S3Error:
        """The same in words for the administrator."""
        code = _code(error)
        where = self._config.s3_endpoint_url or "Amazon S3"
        return S3Error(self._said(code, where, operation, error), code)

    def _said(self, code: str, where: str, operation: str, error: Exception) -> str:
        if code in _CREDENTIALS:
            return (
                f"{where} refuses our credentials for the bucket {self._bucket} ({code}): check "
                "storage.s3_access_key_id, storage.s3_secret_access_key and what they are allowed to do"
            )
        if code == "NoSuchBucket":
            return f"{where} has no bucket {self._bucket}: make it, or correct storage.blobs"
        if code in _WRONG_REGION:
            return f"the bucket {self._bucket} is in another region ({_message(error)}): correct storage.s3_region"
        if code:
            return f"{where} answers {code} to {operation}: {_message(error)}"
        if not _may_pass(error):
            return (
                f"there are no usable credentials for {where} ({error}): set storage.s3_access_key_id and "
                "storage.s3_secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            )
        return (
            f"{where} does not answer ({_short(error)}): see whether it runs and whether storage.s3_endpoint_url "
            "is right"
        )


@asynccontextmanager
async def _slot(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await slots.acquire()
    except TimeoutError:
        raise BlobsUnavailable("too many requests to the object store wait for their turn") from None
    try:
        yield
    finally:
        slots.release()


@functools.cache
def _sign_with_digests() -> None:
    """Has the client's signer take the digest of what is sent from the request's context, where there is one."""
    from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

    class Signer(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> str:
            digest: str = request.context.get(_DIGEST) or super().payload(request)
            return digest

    AUTH_TYPE_MAPS["s3v4"] = Signer


async def _add_digest(request: Any, **_: Any) -> None:
    """Before a request is signed; the client makes a file of some bodies."""
    body = request.body.getvalue() if isinstance(request.body, io.BytesIO) else request.body
    if body:
        request.context[_DIGEST] = await aside(len(body), _sha256, body)


def _sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


async def _read(body: Any) -> bytes:
    try:
        octets: bytes = await body.read()
        return octets
    except TimeoutError:
        raise
    except Exception as error:
        raise ConnectionError(f"the answer broke off: {error}") from error
    finally:
        body.close()


def _region_of_environment(session: Any) -> str:
    return session.get_config_variable("region") or "us-east-1"


def _certificates() -> str | None:
    """The system's certificates; None leaves it to the client, which looks at AWS_CA_BUNDLE and has its own."""
    if "AWS_CA_BUNDLE" in os.environ:
        return None
    return ssl.get_default_verify_paths().cafile


def _code(error: Exception) -> str:
    from botocore.exceptions import ClientError

    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _message(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Message", "")) or "no reason given"


def _short(error: Exception) -> str:
    """The client's own texts hold the whole URL."""
    return str(error) if type(error) is ConnectionError else type(error).__name__


def _is_absent(operation: str, error: Exception) -> bool:
    """HEAD cannot tell a missing bucket from a missing object; what is put or read afterwards can."""
    return operation in ("head_object", "get_object") and _code(error) in _ABSENT_OBJECT


def _is_expected(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    return isinstance(error, (BotoCoreError, ClientError, OSError)) and not isinstance(error, ParamValidationError)


def _may_pass(error: Exception) -> bool:
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as Unreachable
    from botocore.parsers import ResponseParserError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or _code(error) in _PASSING
    return isinstance(error, (Unreachable, HTTPClientError, ResponseParserError, OSError))
