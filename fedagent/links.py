"""What connects two machines: how long something takes to travel."""

import math
from dataclasses import dataclass

from fedagent.errors import require


@dataclass(frozen=True)
class Links:
    """Latency and bandwidth between a node, or an edge, and what is above it.

    Attributes
    ----------
    latency_s : of an exchange, there and back together, >= 0.
    download_bytes_per_s, upload_bytes_per_s : > 0; infinite by default. Each link has its own: a
        line that many nodes share is not modelled.
    """

    latency_s: float = 0.0
    download_bytes_per_s: float = math.inf
    upload_bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        require(self.latency_s >= 0, f"latency_s={self.latency_s} must not be negative.")
        require(
            self.download_bytes_per_s > 0 and self.upload_bytes_per_s > 0,
            "download_bytes_per_s and upload_bytes_per_s must be positive.",
        )

    def up_s(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take on their way up."""
        return self.latency_s / 2 + num_bytes / self.upload_bytes_per_s

    def down_s(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take on their way down."""
        return self.latency_s / 2 + num_bytes / self.download_bytes_per_s

    def then(self, further: "Links") -> "Links":
        """Return this link and `further` one after the other: the narrower one sets the pace."""
        return Links(
            self.latency_s + further.latency_s,
            min(self.download_bytes_per_s, further.download_bytes_per_s),
            min(self.upload_bytes_per_s, further.upload_bytes_per_s),
        )
