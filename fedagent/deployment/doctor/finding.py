"""What a check of ``fedagent doctor`` found."""

from dataclasses import dataclass
from typing import Literal

from fedagent.errors import require

Status = Literal["ok", "warning", "broken", "not checked"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    name : what was checked, in a word or two.
    status : "ok"; "warning", it works but not for long or not safely; "broken", it will not work;
        "not checked", it could not be told.
    what : what was found.
    fix : what to do about it; never empty for a warning or something broken.
    """

    name: str
    status: Status
    what: str
    fix: str = ""

    def __post_init__(self) -> None:
        require(
            bool(self.fix) or self.status in ("ok", "not checked"),
            f"The finding {self.name!r} is {self.status} but says no fix.",
        )
