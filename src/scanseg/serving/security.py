"""Access to a server: token, host names, origins, and headers of responses."""

import hmac
import http.cookies
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
"""Names of this machine in addresses."""
COOKIE = "scanseg-token"
"""Beginning of the name of the viewer's cookie with the token. The port follows, since ports share cookies."""
START_PATH = "/start"
"""Path of the viewer that takes the token in its query and sets the cookie."""
_OPEN_PATHS = ("/health",)
"""Paths that need no token."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Pages load nothing from other hosts. `data:` and `blob:` are in the page itself."""
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Conditions of access."""

    token: str | None = None
    """Token of all requests except `/health`. `None`: no token."""
    host_names: tuple[str, ...] | None = LOOPBACK_NAMES
    """Names of this server in addresses. Others are refused, so that no web page reaches a server on loopback by a name
    of its own (DNS rebinding). `None`: any name."""


class Guard:
    """Refuse requests without access, and add security headers to responses.

    Args:
        app: The application.
        access: Conditions of access.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        fault = self._find_fault(Headers(scope=scope), scope)
        if fault is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers, *fault)

    def _find_fault(self, headers: Headers, scope: Scope) -> tuple[int, str] | None:
        """Return status and message if a request has no access."""
        host = headers.get("host", "")
        names = self._access.host_names
        if names is not None and _name_of(host) not in names:
            return 403, f"host: expected {' or '.join(names)}, got another name. Use the printed address."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return (
                403,
                "origin: expected a page of this server, got another one. Use its own pages or a program.",
            )
        token = self._access.token
        if token is None or scope["path"] in _OPEN_PATHS:
            return None
        if not any(hmac.compare_digest(given.encode(), token.encode()) for given in _tokens(headers, scope)):
            return (
                401,
                "token: expected the token of this server, got none or another one. Send it as a bearer token.",
            )
        return None


def _name_of(host: str) -> str:
    """Return the name in a Host header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _tokens(headers: Headers, scope: Scope) -> Sequence[str]:
    """Return the tokens of a request: header, cookie."""
    tokens = list[str]()
    if scope["path"] == START_PATH:
        tokens += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        tokens.append(value.strip())
    cookies = http.cookies.SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except http.cookies.CookieError:
        return tokens
    name = f"{COOKIE}-{(scope.get('server') or ('', 0))[1]}"
    if name in cookies:
        tokens.append(cookies[name].value)
    return tokens


async def _refuse(send: Send, status: int, message: str) -> None:
    """Send an error as JSON."""
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
