"""A visitor of the live page without a browser, over viser's WebSocket protocol."""

import threading
import time

import pytest

pytest.importorskip('viser', reason='viser is not installed')
import msgspec
import viser
import websockets.sync.client
import zstandard

DEADLINE_S = 60.0


class Visitor:
    """Connects, records the content of the page, and acts as a user. gui: uuid -> message; nodes: scene nodes
    by (name, owner); notes: notifications; removed: names of those taken away; files: downloads by name;
    buffers: bytes received; camera: what the server set of it; background: picture behind the scene or None.
    Further arguments change the camera that the browser begins with."""

    def __init__(self, port, **camera):
        self._socket = websockets.sync.client.connect(
            f'ws://127.0.0.1:{port}',
            subprotocols=[f'viser-v{viser.__version__}'],
            max_size=None,
            compression=None,
            open_timeout=DEADLINE_S,
        )
        self.gui, self.notes, self.nodes, self.buffers, self.files = {}, [], {}, 0, {}
        self._parts = {}
        self.removed, self.camera, self.background = [], {}, None
        self._sent = {
            'wxyz': (1.0, 0, 0, 0),
            'position': (0.0, 0.1, -1.0),
            'fov': 1.0,
            'near': 0.01,
            'far': 1000.0,
            'image_height': 480,
            'image_width': 640,
            'look_at': (0.0, 0.0, 1.0),
            'up_direction': (0.0, -1.0, 0.0),
        }
        self.lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.move(**camera)

    def move(self, **camera):
        """Send the camera with these values changed."""
        self._sent |= camera
        self.send('ViewerCameraMessage', **self._sent)

    def send(self, kind, **fields):
        """Send a message to the server."""
        self._socket.send(msgspec.msgpack.encode({'type': kind, **fields}))

    def _read(self):
        try:
            for frame in self._socket:
                size = int.from_bytes(frame[8:16], 'little')
                inner = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(frame[16 : 16 + size]))
                with self.lock:
                    self.buffers += sum(inner['binaryBufferLengths'])
                    for message in inner['messages']:
                        self._take(message)
        except Exception:
            pass  # the server has closed

    def _take(self, message):
        kind = message['type']
        if kind.startswith('Gui') and 'props' in message:
            self.gui[message['uuid']] = message
        elif kind == 'GuiUpdateMessage' and message['uuid'] in self.gui:
            element = self.gui[message['uuid']]
            for name, value in message['updates'].items():
                (element['props'] if name in element['props'] else element)[name] = value
        elif kind == 'GuiRemoveMessage':
            self.gui.pop(message['uuid'], None)
        elif kind == 'NotificationShowMessage':
            self.notes.append(message['props']['body'])
        elif kind == 'RemoveNotificationMessage':
            self.removed.append(message['uuid'])
        elif kind == 'BackgroundImageMessage':
            self.background = message['rgb_data']
        elif kind == 'SetSceneNodeVisibilityMessage':
            self.nodes.setdefault((message['name'], message.get('owner')), {})['shown'] = message['visible']
        elif kind in ('SetCameraPositionMessage', 'SetCameraLookAtMessage', 'SetCameraFovMessage'):
            self.camera |= {} if message['initial'] else message
        elif kind == 'FileTransferStartDownload':
            self._parts[message['transfer_uuid']] = message, []
        elif kind == 'FileTransferPart':
            start, parts = self._parts[message['transfer_uuid']]
            parts.append(message['content'])
            self.send(
                'FileTransferPartAck',
                source_component_uuid=None,
                transfer_uuid=message['transfer_uuid'],
                transferred_bytes=sum(map(len, parts)),
                total_bytes=start['size_bytes'],
            )
            if len(parts) == start['part_count']:
                self.files[start['filename']] = b''.join(parts)
        elif kind == 'RemoveSceneNodeMessage':
            self.nodes.pop((message['name'], message.get('owner')), None)
        elif kind == 'SceneNodeUpdateMessage':
            self.nodes.setdefault((message['name'], message.get('owner')), {}).update(message['updates'])
        elif 'name' in message and 'props' in message:
            self.nodes[message['name'], message.get('owner')] = dict(message['props'], kind=kind)

    def element(self, label):
        """The uuid of the element with this label."""
        with self.lock:
            return next((uuid for uuid, m in self.gui.items() if m['props'].get('label') == label), None)

    def text(self):
        """All HTML and all labels of the panel."""
        with self.lock:
            return '\n'.join(
                str(m['props'].get('content') or m['props'].get('label') or '')
                for m in self.gui.values()
                if m['props'].get('visible', True)
            )

    def names(self):
        """Names of the scene's nodes."""
        with self.lock:
            return {name for name, _ in self.nodes}

    def shows(self, name):
        """Whether the scene's node is visible."""
        with self.lock:
            return all(node.get('shown', True) for (key, _), node in self.nodes.items() if key == name)

    def set(self, label, value):
        """Set the value of an element."""
        self.until(lambda: self.element(label), f'an element {label}')
        self.send('GuiUpdateMessage', uuid=self.element(label), updates={'value': value})

    def press(self, label):
        """Click a button."""
        self.set(label, True)

    def find(self, text):
        """Type a query."""
        self.set('Find', text)

    def until(self, condition, what, deadline_s=DEADLINE_S):
        """Wait until `condition()` is true; `what` names it in errors."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, f'no {what} in:\n{self.text()}\n{self.names()}\n{self.notes}'
            time.sleep(0.01)

    def reads(self, text):
        """Wait until the panel shows `text`."""
        self.until(lambda: text in self.text(), repr(text))

    def close(self):
        """Disconnect."""
        self._socket.close()
        self._reader.join(DEADLINE_S)
