"""SQLite files of rosbag2 (.db3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from gsemsplat_ros.ros.client.bag_decompress import LARGEST, ZSTD_MAGIC, decompress
from gsemsplat_ros.ros.client.bag_storage import Topics


class SqliteFile:
    """One .db3 file, which is not changed."""

    def __init__(self, path: Path):
        """Raises ValueError and sqlite3.Error for a damaged file."""
        # as a URI, in which '#', '?' and '%' of a path are escaped
        self._database = sqlite3.connect(f'{path.resolve().as_uri()}?immutable=1', uri=True)
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        ask = self._database.execute
        tables = {name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {'topics', 'messages'} <= tables:
            raise ValueError('it has no tables of messages and topics')
        counts = {
            number: (count, first, last)
            for number, count, first, last in ask(
                'SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id'
            )
        }
        self.topics, self._names = Topics(), {}
        for number, name, kind, encoding in ask('SELECT id, name, type, serialization_format FROM topics'):
            count = counts.get(number, (0, 0, 0))[0]
            if self.topics.add(str(name), str(kind), str(encoding), count):
                self._names[number] = str(name)
        spans = [counts[number][1:] for number in self._names if number in counts] or [(0, 0)]
        self.span_ns = min(first for first, _ in spans), max(last for _, last in spans)

    def messages(self, names: Collection[str], start_ns: int = 0) -> Iterator[tuple[str, int, bytes]]:
        """As `Storage.messages`."""
        wanted = [number for number, name in self._names.items() if name in names]
        places = ', '.join('?' * len(wanted))
        rows = self._database.execute(
            'SELECT topic_id, timestamp, length(data), id FROM messages '
            f'WHERE timestamp >= ? AND topic_id IN ({places}) ORDER BY timestamp, id',
            (start_ns, *wanted),
        )
        for number, at, size, row in rows:
            if size > LARGEST:
                raise ValueError(f'a message has {size:,} bytes: wanted at most {LARGEST >> 20} MiB')
            ((data,),) = self._database.execute('SELECT data FROM messages WHERE id = ?', (row,))
            yield self._names[number], at, decompress(data, 'zstd') if data[:4] == ZSTD_MAGIC else data

    def close(self) -> None:
        """As `Storage.close`."""
        self._database.close()
