"""Chance that depends on a seed, the round and the learner's name only, so that nothing has to be remembered."""

from __future__ import annotations

import hashlib


def uniform(seed: int, round: int, learner: str) -> float:
    """A number above 0 and below 1, as good as drawn afresh for each learner and round.

    A learner that comes or goes changes nobody else's: whoever was selected with it missing mostly still is.
    """
    digest = hashlib.blake2b(f"{seed}/{round}/{learner}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64
