"""No page of another site connects to the live page, by its own name or by one that was pointed here."""

import http.client

import pytest

pytest.importorskip('viser')

import viser
import websockets.asyncio.server
import websockets.exceptions
import websockets.sync.client
from support.live_page import DEADLINE_S, Served

from gsemsplat_ros.live import gate
from gsemsplat_ros.live.gate import is_this_machine, refusal
from gsemsplat_ros.live.server import ViewServer
from gsemsplat_ros.live.shared_state import SharedState


@pytest.fixture(scope='module')
def served():
    page = Served(100)
    yield page
    page.close()


def connect(served, **headers):
    """A WebSocket, with these headers besides those that it needs."""
    return websockets.sync.client.connect(
        f'ws://127.0.0.1:{served.server.port}',
        subprotocols=[f'viser-v{viser.__version__}'],
        max_size=None,
        compression=None,
        open_timeout=DEADLINE_S,
        additional_headers=headers,
    )


@pytest.mark.parametrize(
    'origin, host, local, refused',
    [
        (None, 'localhost:8080', True, False),  # a program
        ('http://localhost:8080', 'localhost:8080', True, False),
        ('http://LocalHost:8080', 'localhost:8080', True, False),
        ('http://127.0.0.1:9000', '127.0.0.1:9000', True, False),  # ssh -L 9000:localhost:8080
        ('http://[::1]:8080', '[::1]:8080', True, False),
        ('http://robot.local', 'robot.local', False, False),
        ('https://robot.example', 'robot.example', False, False),  # behind a proxy that ends TLS
        ('http://evil.example', 'localhost:8080', True, True),
        ('http://localhost:3000', 'localhost:8080', True, True),  # another server of this machine
        ('http://localhost', 'localhost:8080', True, True),
        ('null', 'localhost:8080', True, True),  # a file, a frame in a sandbox
        ('', 'localhost:8080', True, True),
        ('http://localhost:8080@evil.example', 'localhost:8080', True, True),
        ('http://[evil', 'localhost:8080', True, True),
        (
            'http://evil.example:8080',
            'evil.example:8080',
            True,
            True,
        ),  # a name that was pointed at this machine
        (None, 'evil.example:8080', True, True),
        (None, '', True, True),
        ('http://evil.example', 'robot.local:8080', False, True),
    ],
)
def test_only_its_own_page_and_programs_connect(origin, host, local, refused):
    assert bool(refusal(origin, host, local)) == refused


def test_a_foreign_origin_is_refused_at_the_handshake(served):
    here = f'http://127.0.0.1:{served.server.port}'
    for headers in ({}, {'Origin': here}):
        connect(served, **headers).close()
    for origin in ('http://evil.example', 'null', 'http://127.0.0.1:1'):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            connect(served, Origin=origin)
        assert refused.value.response.status_code == 403
        assert b'only its own page may' in refused.value.response.body
    assert served.server.visitors == 0


def test_a_foreign_name_gets_no_page(served):
    connection = http.client.HTTPConnection('127.0.0.1', served.server.port, timeout=DEADLINE_S)
    for host, status in (('evil.example', 403), (f'localhost:{served.server.port}', 200)):
        connection.request('GET', '/', headers={'Host': host})
        answer = connection.getresponse()
        assert answer.status == status
        assert status == 200 or b'open it as localhost' in answer.read()
        connection.close()


def test_browsers_are_counted(served, monkeypatch):
    monkeypatch.setattr(gate, 'MOST_VISITORS', 2)
    first, second = connect(served), connect(served)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(served)
    assert refused.value.response.status_code == 503
    assert b'2 browsers are connected' in refused.value.response.body
    first.close()
    third = connect(served)  # close() waits for the server's answer
    for one in (second, third):
        one.close()


def test_a_viser_without_the_gate_is_refused(monkeypatch):
    class Other:  # starts its server by other means
        __version__ = '9.0'
        ended = False

        def __init__(self, *arguments, **options):
            pass

        def stop(self):
            Other.ended = True

    Other.ViserServer = Other
    monkeypatch.setattr('gsemsplat_ros.live.server.load_viser', lambda: Other)
    before = websockets.asyncio.server.serve
    with pytest.raises(ValueError, match='viser 9.0 starts its server in a way that is not known'):
        ViewServer(SharedState(), port=0)
    assert Other.ended and websockets.asyncio.server.serve is before


def test_what_only_this_machine_reaches():
    here = 'localhost', '127.0.0.1', '127.0.0.2', '::1', 'a.localhost'
    assert all(map(is_this_machine, here))
    assert not any(map(is_this_machine, ('', '0.0.0.0', '::', '10.0.0.1', 'robot', 'localhost.evil.example')))
