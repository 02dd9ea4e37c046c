"""result.json as it is on disk: the one place that reads it. Nothing is raised for a damaged file, set aside, or written.

It stands here because a plan may name a run (`teacher=`); what writes records is `attnlab.records`.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnlab.config.groups import GROUPS
from attnlab.config.signatures import conforms

# what a result.json states of its run; halted: told to end for now (`attnlab.callbacks.halt`)
RUNNING, INTERRUPTED, HALTED, FAILED, FINISHED = STATES = ("running", "interrupted", "halted", "failed", "finished")
MISSING, BROKEN = "missing", "broken"  # what a reader states where there is none, or none to trust

RESULT = "result.json"
DIGEST = "digest"  # of everything else in a result.json
REQUIRED = {"status": str, "run_id": str, "config": dict, "metrics": dict, "seed": int}


# what else a reader may look at, and its type; of another type, it counts as not there
OPTIONAL = {
    "overrides": list[str], "command": str, "training": str, "trained_by": str, "stage": str, "error": dict, "warnings": list[str],
    "places": dict[str, str], "pictures": dict[str, str], "parameters": int, "epochs": int, "seconds": float, "images_per_second": float,
    "stage_seconds": dict[str, float], "timings": dict[str, float], "started": float, "finished": float, "device": str,
    "device_kind": str, "precision": str, "threads": int, "versions": dict[str, str], "git": dict, "data": dict, "measured": dict,
    "code": dict[str, str], "begun_by": list[str],
    "members": list[str], "weights": dict[str, str], "files": dict[str, str], "seeds": dict[str, dict],
}  # fmt: skip
DATA = {
    "name": str, "shape": list[int], "classes": list[str], "images": dict[str, int], "digests": dict[str, str], "mean": list[float],
    "std": list[float], "stamp": str, "ood_splits": str,
}  # fmt: skip


def address_in(run_id: str) -> str:
    """The address in a run_id (or a folder's name): digits-resnet18-rect-s0-3fa9c1d2 -> 3fa9c1d2."""
    return run_id.rpartition("-")[2]


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result, plain JSON, with the digest of everything else in it; what is written, and what `read_result` holds a file against."""
    content = {key: value for key, value in result.items() if key != DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, DIGEST: hashlib.sha256(text.encode()).hexdigest()[:32]}


def warnings_in(result: Mapping[str, Any]) -> list[str]:
    """What a result states of its own numbers."""
    stated = result.get("warnings")
    return [str(text) for text in stated] if isinstance(stated, list) else []


@dataclass(frozen=True)
class Found:
    """What is on disk of one run. `result` is empty where there is no result.json that can be trusted; `wrong` is the reason, `cause` the
    error of a disk that could not be read."""

    status: str
    folder: Path | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    wrong: str = ""
    cause: OSError | None = None

    file: str = RESULT

    @property
    def error(self) -> str | None:
        """What a person has to know: what is wrong with the file, or what ended the run."""
        if self.wrong:
            return f"{self.file} {self.wrong}"
        noted = self.result.get("error")
        message = noted.get("message") if isinstance(noted, dict) else None
        return str(message) if message else None


def read_result(folder: Path, *, name: str | None = "", file: str = RESULT) -> Found:
    """The run in `folder` as its result.json states it; `interrupted` where there is only a checkpoint. name: of the run whose record it
    must be, where the folder has another; None: whosever it is. file: another that is written as a result.json is."""
    text = ""

    def broken(wrong: str, cause: OSError | None = None) -> Found:
        return Found(BROKEN, folder, wrong=wrong, cause=cause, file=file)

    try:
        text = (folder / file).read_bytes().decode()
        result = json.loads(text)
    except FileNotFoundError:
        return Found(INTERRUPTED if (folder / "last.ckpt").exists() else MISSING, folder, file=file)
    except OSError as error:
        return broken(f"cannot be read ({error.strerror or error})", error)
    except UnicodeDecodeError:
        return broken("is damaged (no text)")
    except (ValueError, RecursionError) as error:
        return broken(f"is damaged ({'empty' if not text.strip() else error})")
    wrong = _wrong(result, folder.name if name == "" else name)
    return broken(wrong) if wrong else Found(result["status"], folder, _readable(result), file=file)


def _readable(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without fields of another type than OPTIONAL and DATA say, and metrics and settings that are none: a record may be
    somebody else's, or of a version to come."""
    kept = _conforming(result, OPTIONAL)
    if "data" in kept:
        kept["data"] = _conforming(kept["data"], DATA)
    numbers = {key: value for key, value in kept["metrics"].items() if value is None or (conforms(value, float) and math.isfinite(value))}
    groups = {key: value for key, value in kept["config"].items() if key not in GROUPS or value is None or isinstance(value, dict)}
    return {**kept, "metrics": numbers, "config": groups}


def _conforming(node: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is of another type, or a number that is not finite (JSON has those by name in Python)."""
    return {
        key: value
        for key, value in node.items()
        if key not in types or (conforms(value, types[key]) and not (isinstance(value, float) and not math.isfinite(value)))
    }


def _wrong(result: Any, name: str | None) -> str:
    for key, kind in REQUIRED.items():
        if not isinstance(result, dict) or not isinstance(result.get(key), kind):
            return f"is damaged (no {key})"
    if name is not None and address_in(result["run_id"]) != address_in(name):
        return f"belongs to another run ({result['run_id']})"
    if result["status"] not in STATES:
        return f"is damaged (status {result['status']!r})"
    if DIGEST in result and sealed(result) != result:  # one from before there were digests is taken as it is
        return "is damaged (its contents are not what was written)"
    return ""
