"""Reads an offline W&B file back."""

import json
import struct
from pathlib import Path


class OfflineFile:
    """W&B's transaction log (a LevelDB log: 32 KiB blocks of records with a 7-byte header), decoded."""

    def __init__(self, path: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        self.bytes = path.read_bytes()
        assert self.bytes[:4] == b":W&B"
        self.config, self.history, self.summary, self.metrics, self.exit_code = {}, {}, {}, {}, None
        position, payload = 7, b""
        while position + 7 <= len(self.bytes):
            if (left := 32768 - position % 32768) < 7:
                position += left
                continue
            _, size, kind = struct.unpack("<IHB", self.bytes[position : position + 7])
            payload += self.bytes[position + 7 : position + 7 + size]
            position += 7 + size
            if kind in (1, 4):  # whole, or the last part
                record = wandb_internal_pb2.Record()
                record.ParseFromString(payload)
                payload = b""
                self.take(record)

    def take(self, record) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            self.history.setdefault(record.history.step.num, {}).update(row)
        elif kind == "summary":
            self.summary |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.summary.update}
        elif kind == "metric":
            self.metrics[record.metric.name] = record.metric
        elif kind == "exit":
            self.exit_code = record.exit.exit_code
