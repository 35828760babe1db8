"""Which version of a model answers a request.

A version is served under a name that its bytes decide, ``<model>@<digest>``: what was loaded under
it never changes, so that no request is answered by weights of which nobody knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field

from tasks.artifacts import Record

Side = Literal["champion", "challenger", "shadow"]
_DIGITS = 12


class Version(Record):
    """A version in the registry and the name that replicas know it by."""

    version: str
    served: str


class Route(Record):
    """Who answers for one model: the champion, and a challenger for a share of the requests.

    In shadow mode the challenger answers copies that nobody sees.
    """

    champion: Version
    challenger: Version | None = None
    share: float = Field(0.0, ge=0, le=1)
    shadow: bool = False
    # Who was asked for before; the one to go on with until replicas hold the new one.
    previous: Version | None = None

    @property
    def versions(self) -> list[Version]:
        """All that may answer, the champion first."""
        return [v for v in (self.champion, self.challenger, self.previous) if v is not None]

    def of(self, side: Side) -> Version:
        """The version on a side; the champion where there is no challenger."""
        return self.champion if side == "champion" or not self.challenger else self.challenger

    def among(self, loaded: Collection[str]) -> Route | None:
        """The route over what replicas hold; None where they hold nothing of it.

        While no replica holds the champion, ``previous`` answers in its place: an alias moves in an
        instant, an adapter is fetched and checked first.
        """
        challenger = self.challenger
        if challenger is not None and challenger.served not in loaded:
            challenger = None
        for first in (self.champion, self.previous):
            if first is not None and first.served in loaded:
                same = challenger is not None and challenger.served == first.served
                return self.model_copy(
                    update={"champion": first, "challenger": None if same else challenger}
                )
        return None


Routes = Mapping[str, Route]


def served_name(model: str, adapter_digest: str) -> str:
    """The content-addressed name that a version's adapter is loaded under."""
    return f"{model}@{adapter_digest[:_DIGITS]}"


def place(served: str, unit: str) -> float:
    """Where a user, conversation or request stands in [0, 1) for one challenger; always the same.

    Another challenger draws anew, so that it is not always the same users who try things out. Half
    a SHA-256 is 2^-64 away from uniform.
    """
    digest = hashlib.sha256(f"{served}\0{unit}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def side_of(route: Route, unit: str) -> Side:
    """Who answers: the challenger, for the units that stand below its share."""
    if route.challenger is None or route.shadow:
        return "champion"
    return "challenger" if place(route.challenger.served, unit) < route.share else "champion"
