"""The live page's server: viser, with one VisitorPage for each browser."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from gsemsplat_ros.live.gate import Gate, is_this_machine
from gsemsplat_ros.live.shared_state import SharedState
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.live.splat_cache import SplatCache
from gsemsplat_ros.live.visitor_overlay import add_splats
from gsemsplat_ros.live.visitor_page import VisitorPage

if TYPE_CHECKING:
    import viser

log = logging.getLogger(__name__)

WORKERS = 32  # pages updated at the same time; most of them only wait for an answer
BRAND = (226, 130, 20)
SOFTWARE_NOTICE = 'webgl-software-rendering'  # by this name viser's page shows it


class ViewServer:
    """Serves the page until `close`. Heavy work runs in own threads; viser's event loop only sends bytes."""

    def __init__(self, shared: SharedState, host: str = '127.0.0.1', port: int = 8080):
        """Raises ValueError if viser is missing or not as known, or the address cannot be bound."""
        viser_module = load_viser()
        check_free(host, port)
        self.shared, self._cache = shared, SplatCache()
        self._pool = ThreadPoolExecutor(WORKERS, 'page')
        self._still_pool = ThreadPoolExecutor(1, 'still')  # one rendering at a time for all visitors
        self._pages: dict[int, VisitorPage] = {}
        self._pages_lock = threading.Lock()
        self._shown: ShownScene | None = None
        self._changed, self._closing = threading.Event(), False
        gate = Gate(is_this_machine(host))
        # viser prints a banner even if not verbose
        with gate.at_handshakes(), contextlib.redirect_stdout(io.StringIO()):
            self._viser = viser_module.ViserServer(host, port, label='gsemsplat', verbose=False)
        if not gate.in_place:
            self._viser.stop()
            raise ValueError(
                f'viser {viser_module.__version__} starts its server in a way that is not known, so pages of '
                'other sites could connect: run `pip install viser==1.1.1`'
            )
        # otherwise any page could make viser open a tunnel to the public internet
        self._viser.request_share_url = _no_share_url
        self._viser.gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,
            brand_color=BRAND,
            control_width='medium',
        )
        self._viser.gui.set_panel_label('gsemsplat')
        self._viser.gui.main_panel.dock_right()  # beside the scene, not on it; on a phone it lies below
        self._viser.scene.world_axes.visible = False
        self._splats: viser.GaussianSplatHandle | None = None
        self.host, self.port = host, self._viser.get_port()
        self._follower = threading.Thread(target=self._follow, name='follow', daemon=True)
        self._follower.start()
        shared.listeners.append(self._changed.set)
        self._changed.set()
        self._viser.on_client_connect(self._connected)
        self._viser.on_client_disconnect(self._left)

    @property
    def url(self) -> str:
        """Address of the page for a browser on this machine."""
        host = 'localhost' if self.host in ('0.0.0.0', '::', '') else self.host
        return f'http://{f"[{host}]" if ":" in host else host}:{self.port}'

    @property
    def visitors(self) -> int:
        """Number of connected browsers."""
        with self._pages_lock:
            return len(self._pages)

    def _connected(self, client: viser.ClientHandle) -> None:
        self._hide_notice(client)
        page = VisitorPage(client, self.shared, self._cache, self._submit, self._submit_still)
        with self._pages_lock:
            self._pages[client.client_id] = page
        log.debug('a browser has come: %d connected', self.visitors)
        if client.client_id not in self._viser.get_clients():  # it left while the page was made
            self._left(client)

    @staticmethod
    def _hide_notice(client: viser.ClientHandle) -> None:
        """Take away what viser's page writes over the scene of a browser without a GPU: this page copes."""
        with contextlib.suppress(ImportError, AttributeError):  # viser 1.1 has no public call for it
            from viser._messages import RemoveNotificationMessage

            client._websock_connection.queue_message(RemoveNotificationMessage(SOFTWARE_NOTICE))

    def _left(self, client: viser.ClientHandle) -> None:
        with self._pages_lock:
            page = self._pages.pop(client.client_id, None)
        if page:
            page.close()
            log.debug('a browser has gone: %d connected', self.visitors)

    def _submit(self, work: Callable[[], None]) -> None:
        if not self._closing:
            self._pool.submit(work)

    def _submit_still(self, work: Callable[[], None]) -> None:
        if not self._closing:
            self._still_pool.submit(work)

    def _follow(self) -> None:
        """Send each change to all pages; if scenes come faster than they can be sent, only the newest."""
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._closing:
                return
            shown = self.shared.state.shown
            if shown is not None and shown is not self._shown:
                self._show(shown)
            with self._pages_lock:
                pages = list(self._pages.values())
            for page in pages:
                page.refresh()

    def _show(self, shown: ShownScene) -> None:
        buffer = self._cache.plain(shown)
        server, first = self._viser, self._shown is None or self._shown.frame != shown.frame
        with server.atomic():
            if first:
                server.scene.set_up_direction(np.asarray(shown.up))
                server.initial_camera.position = shown.first_view.position
                server.initial_camera.look_at = shown.first_view.look_at
                server.initial_camera.fov = shown.first_view.fov
            if self._splats is None:
                self._splats = add_splats(server.scene)
            self._splats.buffer = buffer
        self._shown = shown

    def close(self) -> None:
        """Stop the server and close every page."""
        self._closing = True
        self._changed.set()
        if self._changed.set in self.shared.listeners:
            self.shared.listeners.remove(self._changed.set)
        with self._pages_lock:
            for page in self._pages.values():
                page.close()
        with contextlib.redirect_stdout(io.StringIO()):
            self._viser.stop()
        for pool in self._pool, self._still_pool:
            pool.shutdown(wait=False, cancel_futures=True)
        self._follower.join(5.0)


def _no_share_url(verbose: bool = True) -> None:
    """Replaces ViserServer.request_share_url."""


def load_viser() -> ModuleType:
    """Import viser. Raises ValueError if it is not installed."""
    try:
        import viser
    except ImportError as error:
        raise ValueError(f'the live view needs viser ({error}): run `pip install viser`') from None
    return viser


def check_free(host: str, port: int) -> None:
    """Raises ValueError if the address is taken; viser would silently use another port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f'cannot listen on {host} port {port} ({getattr(error, "strerror", None) or error}): give '
            'another --port or --host'
        ) from None
