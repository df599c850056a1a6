"""``Connection``: how every remote provider is asked, and ``RemoteError``, how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self, TypeVar
from weakref import finalize

from gte_core import GTEError, __version__
from gte_core.texts import encodable
from gte_integrations._retry import (
    PERMANENT,
    TRANSIENT,
    Failure,
    ask_in_halves,
    classify_http,
    retry_async,
    split,
)
from gte_integrations.remote.loop import all_of, awaited, wait_for

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "gte_integrations.remote needs httpx; pip install 'gte-integrations[remote]'"
    ) from error

T = TypeVar("T")
R = TypeVar("R")
Classify = Callable[[int, bytes, str | None], Failure]

_SHOWN = 300  # characters of what a server said that an error repeats
_CONNECT_SECONDS = 10.0
_CONNECT_SHARE = 0.9  # of a short timeout, so that it is known what took too long
_NOT_TRIED_AGAIN = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class RemoteError(GTEError):
    """A server refused a request, failed, answered nonsense, or could not be reached.

    Attributes:
        status: the HTTP status, None where there was none.
        failure: whether it may pass, and when to ask again.
    """

    def __init__(
        self, message: str, *, status: int | None = None, failure: Failure = PERMANENT
    ) -> None:
        super().__init__(message)
        self.status = status
        self.failure = failure


def _classify(error: Exception) -> Failure:
    return error.failure if isinstance(error, RemoteError) else PERMANENT


class Key:
    """The key of a server: one that was given, or else a variable of the environment.

    It shows itself to nobody: not in ``repr``, and a pickle reads the environment again.
    """

    def __init__(self, given: str | None, variable: str) -> None:
        self._given = given
        self.variable = variable
        self.value()

    def value(self) -> str | None:
        """The key; ``ValueError``, which does not show it, for what no header can carry."""
        if not self._is_usable():  # asked there, so that no variable here holds the key
            raise ValueError(
                f"api_key, or {self.variable} of the environment, is empty or has characters that "
                "no key has; pass the key alone, in one line, or None."
            )
        return self._found()

    def _found(self) -> str | None:
        if self._given is not None:
            return self._given
        return os.environ.get(self.variable, "").strip() or None

    def _is_usable(self) -> bool:
        found = self._found()
        return found is None or re.fullmatch("[!-~]+", found) is not None

    def hidden(self, text: str) -> str:
        """The text with stars in the place of the key, and of the beginning of one that was cut."""
        key = self.value()
        if not key:
            return text
        text = text.replace(key, "***")
        for length in range(len(key) - 1, 3, -1):
            text = text.replace(f"{key[:length]}…", "***…")
        return text

    def __repr__(self) -> str:
        return f"Key({'given' if self._given else self.variable})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Key, (None, self.variable)

    def __deepcopy__(self, memo: dict[int, Any]) -> Key:
        return self


class _Bearer(httpx.Auth):
    def __init__(self, key: Key) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        if self._key.value():
            request.headers["Authorization"] = f"Bearer {self._key.value()}"
        yield request


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: JSON that was read, and headers by names in lower case."""

    body: Any
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Call:
    """One call of a user: when its time is over, and what went wrong last."""

    ends: float
    last: RemoteError | None = None


@dataclass(slots=True)
class _Session:
    """What lives on the loop where requests are made."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    free: asyncio.Semaphore
    process: int = field(default_factory=os.getpid)

    @property
    def is_open(self) -> bool:
        """Whether there is something to close; a forked child must leave its parent's alone."""
        return self.process == os.getpid() and self.loop.is_running() and not self.client.is_closed


_CALL: ContextVar[_Call] = ContextVar("call")


class Connection:
    """A server that is asked in JSON. Safe to use from several threads and event loops.

    Certificates are verified. A redirect is an error: the key must not follow it elsewhere.

    Args:
        url: of the server, up to where the paths of requests begin.
        key: goes with every request, where there is one.
        timeout: seconds that one request may take.
        deadline: seconds that one call may take, with all its requests and pauses.
        max_in_flight: requests at one time, of all callers together.
        classify: gives the kind of a refusal by its status, its content and its Retry-After.

    Attributes:
        url: the same, without a slash at its end.
        key: the same.
    """

    def __init__(
        self,
        url: str,
        key: Key,
        *,
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
        classify: Classify = classify_http,
    ) -> None:
        self.url = _checked_url(url)
        self.key = key
        self.timeout = positive("timeout", timeout)
        self.deadline = positive("deadline", deadline)
        self.max_in_flight = int(positive("max_in_flight", max_in_flight))
        self._classify_answer = classify
        self._session: _Session | None = None
        self._was_reached = False

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None, "_was_reached": False}

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """What the work comes to, within the deadline. It may use the verbs below."""
        return wait_for(self._in_time(work))

    async def acall(self, work: Coroutine[Any, Any, R]) -> R:
        """``call`` without blocking the event loop; cancelled, it closes its requests."""
        return await awaited(self._in_time(work))

    def close(self) -> None:
        """Close what connections there are; the next request makes new ones."""
        session, self._session = self._session, None
        if session is not None and session.is_open:
            wait_for(session.client.aclose())

    async def get(self, path: str) -> Answer:
        """The answer to a request for this path, at the first attempt that succeeds."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """The answer to a request with this body, at the first attempt that succeeds."""
        return await self._ask("POST", path, as_json(body))

    async def ask_in_parts(
        self,
        items: Sequence[T],
        ask: Callable[[Sequence[T]], Awaitable[R]],
        *,
        most: int,
        most_bytes: int,
        size_of: Callable[[T], int],
        name_of: Callable[[T], str],
    ) -> list[R]:
        """The answers about all items, in their order, of as few requests as the server takes.

        Args:
            items: what to ask about.
            ask: makes one request about some of them.
            most: items of one request.
            most_bytes: of one request.
            size_of: the bytes of an item.
            name_of: what an error calls an item that is too large by itself.
        """
        runs = split(items, size_of, most_bytes)
        parts = [run[i : i + most] for run in runs for i in range(0, len(run), most)]
        found = await all_of([ask_in_halves(part, ask, _classify, name_of) for part in parts])
        return [answer for answers in found for answer in answers]

    async def _in_time(self, work: Coroutine[Any, Any, R]) -> R:
        call = _Call(asyncio.get_running_loop().time() + self.deadline)
        _CALL.set(call)
        try:
            async with asyncio.timeout_at(call.ends):
                return await work
        except RemoteError as error:  # some repeat what the server said
            error.args = tuple(map(self.key.hidden, error.args))
            raise
        except TimeoutError:
            pass  # raised below, so that no request hangs on the error
        late = RemoteError(
            f"{self.url} did not finish a call within {self.deadline:g} seconds; pass fewer texts "
            "at once, or a longer deadline."
        )
        if call.last is not None:
            late.add_note(f"The last failure: {call.last}")
        raise late

    async def _ask(self, method: str, path: str, content: bytes | None) -> Answer:
        session = self._here()
        async with session.free:
            left = _CALL.get().ends - session.loop.time()
            limit = f"deadline is {self.deadline:g}"
            return await retry_async(
                lambda: self._attempt(session, method, path, content), _classify, left, limit
            )

    async def _attempt(
        self, session: _Session, method: str, path: str, content: bytes | None
    ) -> Answer:
        answer = await self._outcome(session, method, path, content)
        if isinstance(answer, RemoteError):
            _CALL.get().last = answer
            raise answer
        return answer

    async def _outcome(
        self, session: _Session, method: str, path: str, content: bytes | None
    ) -> Answer | RemoteError:
        # The errors of httpx hold the request, and so the key: none of them leaves this function.
        try:
            async with asyncio.timeout(self.timeout):
                response = await session.client.request(method, self.url + path, content=content)
        except httpx.ConnectTimeout as error:  # nobody is there; a slow model connects
            return self._unreached(path, error)
        except (TimeoutError, httpx.TimeoutException):
            said = f"{self.url}{path} did not answer within {self.timeout:g} seconds (timeout)."
            return RemoteError(said, failure=TRANSIENT)
        except httpx.HTTPError as error:
            return self._unreached(path, error)
        self._was_reached = True
        return self._read(path, response)

    def _unreached(self, path: str, error: httpx.HTTPError) -> RemoteError:
        said = self.key.hidden((str(error) or type(error).__name__).rstrip("."))
        message = f"{self.url}{path} cannot be reached: {said}"
        if not self._was_reached:
            # One that never answered is rather a wrong address than a server that restarts.
            return RemoteError(f"{message}. Look at the address, and whether the server runs.")
        if isinstance(error, _NOT_TRIED_AGAIN) or _is_of_certificate(error):
            return RemoteError(f"{message}.")
        return RemoteError(f"{message}.", failure=TRANSIENT)

    def _read(self, path: str, response: httpx.Response) -> Answer | RemoteError:
        status, where = response.status_code, f"{self.url}{path}"
        if not response.is_success:
            failure = self._classify_answer(
                status, response.content, response.headers.get("retry-after")
            )
            said = self.key.hidden(self._said(response))
            return RemoteError(
                f"{where} answered {status}: {said}{self._advice(status)}",
                status=status,
                failure=failure,
            )
        try:
            return Answer(json.loads(response.content), response.headers)
        except ValueError:
            said = self.key.hidden(_shortened(response.text))
            return RemoteError(f"{where} answered no JSON, but {said!r}.", status=status)

    def _said(self, response: httpx.Response) -> str:
        if response.is_redirect:
            target = _shortened(response.headers.get("location", ""))
            return (
                f"go to {target!r}. A redirect is not followed, because the key is for this server "
                "alone; pass that address if you trust it"
            )
        return _message(response) or response.reason_phrase or "nothing"

    def _advice(self, status: int) -> str:
        if status not in {401, 403}:
            return ""
        return f". Pass api_key, or set {self.key.variable}; it is {self._state_of_key()}"

    def _state_of_key(self) -> str:
        return "given, but not taken" if self.key.value() else "not given"

    def _here(self) -> _Session:
        """The session of the loop that is running, made when it is first needed."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.loop is not loop:
            client = httpx.AsyncClient(
                verify=_certificates(),
                auth=_Bearer(self.key),
                headers={
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                    "User-Agent": f"gte-integrations/{__version__}",
                },
                timeout=httpx.Timeout(
                    self.timeout, connect=min(_CONNECT_SECONDS, self.timeout * _CONNECT_SHARE)
                ),
                limits=httpx.Limits(max_connections=self.max_in_flight),
            )
            self._session = _Session(loop, client, asyncio.Semaphore(self.max_in_flight))
            finalize(self, _close, self._session).atexit = False
        return self._session


class Remote:
    """What asks a server, and closes its connections when it is left as a context.

    Attributes:
        connection: to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.connection.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what connections there are; the next call makes new ones."""
        self.connection.close()


@cache
def _certificates() -> ssl.SSLContext:
    """What verifies certificates; read once, for it takes longer than a request."""
    return httpx.create_ssl_context()


def sendable(text: str) -> str:
    """The text as every server takes it: in UTF-8, and a space where there is no character."""
    return encodable(text) or " "


def as_json(body: object) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _close(session: _Session) -> None:
    """Close what a connection left when it went."""
    if session.is_open:
        asyncio.run_coroutine_threadsafe(session.client.aclose(), session.loop)


def _checked_url(url: str) -> str:
    """The URL without a slash at its end; ``ValueError``, which shows no secret, for another."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(
            "url must begin with http:// or https:// and name a host, such as "
            "http://localhost:8080."
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError(
            f"url of {parsed.host} has a user, a query or a fragment; pass the address alone, and "
            "a key as api_key or by the environment."
        )
    return str(parsed).rstrip("/")


def positive(name: str, number: float) -> float:
    """Return the number; ``ValueError`` naming it unless it is above 0."""
    if isinstance(number, bool) or not number > 0:
        raise ValueError(f"{name} is {number!r}, but must be more than 0.")
    return number


def _is_of_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _message(response: httpx.Response) -> str:
    """What an error says, in whichever form: JSON of several makes, a text, or nothing."""
    try:
        body = json.loads(response.content)
    except ValueError:
        return _shortened(response.text)
    if not isinstance(body, dict):
        return _shortened(response.text)
    nested = body.get("error")
    inner = nested if isinstance(nested, dict) else body
    message = inner.get("message") or nested or body.get("detail")
    code = inner.get("code") or body.get("error_type")
    return _shortened(f"{message} ({code})" if code else str(message or response.text))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
