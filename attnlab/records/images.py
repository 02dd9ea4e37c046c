"""Which images a run saw: digests of splits, held against each other.

A digest is 16 hex digits, after a word on what they are of where that is not the pixels as the network sees them:

    0a1b...         pixels and labels of a split in memory
    stored:0a1b...  the stored bytes of every image, and labels, of a split that is decoded as it is needed
    listed:0a1b...  names, sizes and labels of all of them and the bytes of some: of more files than can be read in passing
"""

from collections.abc import Mapping


def kind(digest: str) -> str:
    return digest.rpartition(":")[0]


def is_of_every_byte(digest: str) -> bool:
    return kind(digest) != "listed"


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The splits that are not what they were. Digests of two kinds tell nothing: one machine had the memory that another has not."""
    return [split for split in then if split in now and kind(then[split]) == kind(now[split]) and then[split] != now[split]]


def difference(split: str, then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`digest 0a1b..., now 2c3d...` in short."""
    return "digest {}, now {}".format(*(digests[split].rpartition(":")[2][:12] for digests in (then, now)))
