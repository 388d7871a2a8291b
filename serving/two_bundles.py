"""Two bundles in one worker, while a new one is tried: which of them answers a user.

A user's place on the scale of percents is a hash of their id and the rollout's salt: the same in every worker, wherever the share stands,
so who is on the new bundle's side at 5 % still is at 25 %, and another rollout begins with other users.
"""

from hashlib import blake2b

import msgspec

HEADER = b"x-shortlist-bundle"  # a digest: that bundle answers, where it is loaded


class Split(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who answers whom. Digests as bundles name them, `sha256:…`."""

    stable: str
    beside: str = ""  # empty: nobody
    percent: float = 0.0  # of the users
    salt: str = ""

    def of(self, user_id: str) -> str:
        """Digest of the bundle that answers the user."""
        return self.beside if self.percent > 0 and place(user_id, self.salt) < self.percent else self.stable


def place(user_id: str, salt: str) -> float:
    """Between 0 and 100, 100 left out."""
    name = blake2b(user_id.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(name, "little") / (1 << 64) * 100.0
