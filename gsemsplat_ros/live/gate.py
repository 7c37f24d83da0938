"""Who may connect to the live page: the page that this server serves, and programs; no page of another site.

A browser lets every page open a WebSocket to every address and names the page in the header Origin (RFC 6455,
10.2). viser asks nobody, so the check is put before its own answer to a request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

MOST_VISITORS = 32  # browsers connected at once


def is_this_machine(host: str) -> bool:
    """Whether only this machine reaches the address or name `host`."""
    if host == 'localhost' or host.endswith('.localhost'):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(origin: str | None, host: str, is_local: bool) -> str:
    """Why a request is refused, or ''.

    origin: the header Origin, None of a program that is no browser. host: the header Host. is_local: the
    server listens on this machine alone: then Host names it, or a foreign name was pointed at this machine
    (DNS rebinding).
    """
    if is_local and not is_this_machine(_name(host)):
        return f'the page was asked for as {host!r}: open it as localhost'
    if origin is not None and _site(origin) != host.lower():
        return f'a page of {origin!r} wants to connect to {host!r}: only its own page may'
    return ''


def _name(host: str) -> str:
    """The host of the header Host, without port and brackets."""
    try:
        return urlsplit(f'//{host}').hostname or ''
    except ValueError:
        return ''


def _site(origin: str) -> str:
    """Host and port of an origin; '' of one without ('null': a file, a frame in a sandbox)."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ''


@dataclass
class Gate:
    """The check, and whether the server that started within `at_handshakes` has it."""

    is_local: bool
    in_place: bool = False

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a refused request; None: go on."""
        reason = refusal(request.headers.get('Origin'), request.headers.get('Host', ''), self.is_local)
        if reason:
            return connection.respond(403, f'gsemsplat view: {reason}\n')
        comes = 'Upgrade' in request.headers or request.path.partition('?')[0] == '/'
        if comes and len(connection.server.connections) >= MOST_VISITORS:
            return connection.respond(
                503,
                f'gsemsplat view: {MOST_VISITORS} browsers are connected: close one, and load this again\n',
            )
        return None

    @contextmanager
    def at_handshakes(self) -> Iterator[None]:
        """Inside, a server of `websockets` that starts in this process checks each request first."""
        import websockets.asyncio.server as module

        serve = module.serve

        def checked_serve(*args: Any, process_request: Callable | None = None, **options: Any) -> Any:
            def process(connection: ServerConnection, request: Request) -> Any:
                refused = self.check(connection, request)
                return (
                    process_request(connection, request) if refused is None and process_request else refused
                )

            self.in_place = True
            return serve(*args, process_request=process, **options)

        module.serve = checked_serve  # type: ignore[assignment, misc]  # viser 1.1 has no hook for this
        try:
            yield
        finally:
            module.serve = serve  # type: ignore[misc]
