"""An offline W&B file, gathered into what a run is."""

import json
from pathlib import Path

from attnlab.loggers.wandb_log import records_of


class OfflineFile:
    """config, history by step, summary, metrics, artifacts and exit code of a .wandb file."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, path.read_bytes()
        assert self.bytes[:4] == b":W&B"
        self.config, self.history, self.summary, self.metrics, self.artifacts, self.exit_code = {}, {}, {}, {}, [], None
        for record in records_of(path):
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
        elif kind == "artifact":
            self.artifacts.append(record.artifact)
        elif kind == "exit":
            self.exit_code = record.exit.exit_code
