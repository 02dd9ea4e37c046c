"""How much of a set may live in memory."""

import math
import os

RESIDENT_LIMIT = 4 * 2**30  # bytes of uint8 that may live in memory, and at most ...
RESIDENT_SHARE = 0.4  # ... this share of what is free


def most_resident() -> float:
    """Bytes that one split may take."""
    return min(RESIDENT_LIMIT, RESIDENT_SHARE * free_memory())


def free_memory() -> float:
    """Bytes of memory a process may still take; infinite where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf if not hasattr(os, "sysconf") else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
