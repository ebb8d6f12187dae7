"""What W&B wrote offline: records of protocol buffers in LevelDB's log format (blocks of 32 KiB; 7 bytes of header)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, type: 1 whole, 2 first, 3 middle, 4 last


def records(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    place, pieces = HEADER.size, b""  # W&B's own header is as long as one of these
    while place + HEADER.size <= len(data):
        rest = BLOCK - place % BLOCK
        if rest < HEADER.size:
            place += rest
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        pieces += data[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(pieces)
            yield record
            pieces = b""


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The configuration and the logged values of the only offline run under a folder, which ends here."""
    wandb.teardown()  # as at the end of a process: what is written is whole
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    config: dict[str, Any] = {}
    rows = []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            updates = record.run.config.update if kind == "run" else record.config.update
            config |= {item.key: json.loads(item.value_json) for item in updates if item.key}
        elif kind == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return config, rows
