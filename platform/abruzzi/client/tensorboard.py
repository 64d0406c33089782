"""TensorBoard event files: TFRecord frames around Event messages, written by hand, because scalars need three fields of that protocol.

Frame: length (uint64), its masked CRC-32C, the message, its masked CRC-32C (tensorflow/core/lib/io/record_writer.h). Message:
tensorflow/core/util/event.proto with wall_time = 1, step = 2, file_version = 3, summary = 5, and summary.proto's value = 1 {tag = 1,
simple_value = 2}.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        entries.append(byte)
    return entries


_TABLE = _table()


class EventFiles:
    """A folder with one event file an attempt, each a run of TensorBoard's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def scalar(self, run: str, tag: str, *, step: int, value: float, at: float) -> None:
        summary = _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        self._file(run, at).write(frame(b"\x09" + struct.pack("<d", at) + b"\x10" + _varint(step) + _bytes(5, summary)))

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, run: str, at: float) -> BinaryIO:
        if run not in self._files:
            (self._folder / run).mkdir(parents=True, exist_ok=True)
            file = self._files[run] = (self._folder / run / f"events.out.tfevents.{int(at):010d}.abruzzi").open("wb")
            file.write(frame(b"\x09" + struct.pack("<d", at) + _bytes(3, b"brain.Event:2")))
        return self._files[run]


def frame(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _masked(length) + message + _masked(message)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
