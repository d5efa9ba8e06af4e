"""What the gateway is told: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from relight.errors import ConfigError
from relight.gateway.keys import Keys

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request may bring. Sizes in bytes, times in seconds."""

    json_bytes: int = 64 * MIB
    form_bytes: int = 128 * MIB
    json_values: int = 500_000
    """Commas, colons and brackets of a JSON body: what its values cost once they are unpacked."""
    json_depth: int = 64
    form_parts: int = 32
    form_text_bytes: int = MIB
    picture_bytes: int = 32 * MIB
    picture_pixels: int = 24_000_000
    picture_side: int = 16_384
    pictures: int = 16
    output_pixels: int = 4096 * 4096
    """Of one answer: width x height x n."""
    output_pictures: int = 16
    schema_values: int = 4096
    schema_depth: int = 32
    prompt_chars: int = 2_000_000
    body_s: float = 60.0
    header_s: float = 15.0
    write_s: float = 120.0
    """A client that takes nothing for so long has left."""
    header_bytes: int = 32 * 1024
    at_once: int = 512
    """Requests in the works; more are answered 503."""
    connections_per_peer: int = 256


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """`hostnames` are names that this machine is reached by, beside addresses and localhost. `origins` are web pages
    (scheme://host:port) whose scripts may ask. Times are in seconds.

    Raises ConfigError for an address that others can reach while no key is needed, unless `open_to_network`.
    """

    host: str = "127.0.0.1"
    port: int = 8188
    keys: Keys = field(default_factory=Keys)
    open_to_network: bool = False
    hostnames: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: Limits = Limits()
    patience_s: float = 5.0
    """An answer that takes longer is begun, so that it can be kept alive; its status is 200 from then on."""
    ping_s: float = 10.0
    drain_s: float = 20.0
    """From the order to stop to the end of what still runs."""
    health_s: float = 20.0
    """A check of the node that takes longer has failed."""
    health_every_s: float = 2.0
    """The node is not asked more often, however many ask the gateway."""
    remember_s: float = 120.0
    """How long an ended request is there for its own repetition."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port}: 0 to 65535")
        if not is_loopback(self.host) and not self.keys and not self.open_to_network:
            raise ConfigError(
                f"host {self.host}: others can reach it and there is no API key; make one with relight "
                "serve --new-key NAME, listen on 127.0.0.1, or let everybody use this machine (--open-to-network)"
            )
        for origin in self.origins:
            if origin == "*" or "://" not in origin or origin.rstrip("/") != origin:
                raise ConfigError(f"origin {origin!r}: scheme://host or scheme://host:port, each by name")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
