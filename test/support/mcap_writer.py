"""MCAP files (mcap.dev/spec) with foreign topics, without an index, of any compression and profile."""

import struct

MAGIC = b'\x89MCAP0\r\n'


def text(value):
    """A text, or bytes, with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack('<I', len(data)) + data


def record(kind, *parts):
    """A record of these parts."""
    body = b''.join(parts)
    return struct.pack('<BQ', kind, len(body)) + body


def write_mcap(
    path, messages, profile='ros2', compress=None, compression='', chunk_size=3, index=True, summary=True
):
    """messages: (topic, schema name or None, its encoding, its data, message encoding, time [ns], bytes).

    compress: function from the records of a chunk to its bytes; None: no chunks. index: message indexes;
    summary: schemas and channels again after the data.
    """
    declared, channels = [], {}
    for topic, name, encoding, data, coding, _, _ in messages:
        if topic in channels:
            continue
        number = channels[topic] = len(channels) + 1
        if name is not None:
            declared.append(record(3, struct.pack('<H', number), text(name), text(encoding), text(data)))
        fields = struct.pack('<HH', number, number if name is not None else 0)
        declared.append(record(4, fields, text(topic), text(coding), text(b'')))
    rows = [
        (channels[topic], time, record(5, struct.pack('<HIQQ', channels[topic], 0, time, time), data))
        for topic, *_, time, data in messages
    ]
    out = [MAGIC, record(1, text(profile), text('test'))]
    if compress is None:
        out += [*declared, *(data for *_, data in rows)]
    else:
        for start in range(0, len(rows), chunk_size):
            part = rows[start : start + chunk_size]
            body = b''.join(declared) if start == 0 else b''
            indexes = {}
            for number, time, data in part:
                indexes.setdefault(number, []).append(struct.pack('<QQ', time, len(body)))
                body += data
            packed = compress(body)
            times = [time for _, time, _ in part]
            head = struct.pack('<QQQI', min(times), max(times), len(body), 0)
            out.append(record(6, head, text(compression), struct.pack('<Q', len(packed)), packed))
            if index:
                out += [
                    record(7, struct.pack('<H', number), text(b''.join(entries)))
                    for number, entries in indexes.items()
                ]
    out.append(record(15, bytes(4)))
    start = sum(map(len, out))
    if summary:
        out += declared
    out += [record(2, struct.pack('<QQI', start if summary else 0, 0, 0)), MAGIC]
    path.write_bytes(b''.join(out))
    return path
