"""API keys: made at random, kept only as salted hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from relight.errors import ConfigError

PREFIX = "rl-"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,64}):(?P<salt>[0-9a-f]{32}):(?P<digest>[0-9a-f]{64})")
SHORTEST = 16
LONGEST = 512


@dataclass(frozen=True)
class HashedKey:
    """`digest` is BLAKE2b of the key, salted: keys are too random to be guessed, so a slow hash would only cost time
    with every request."""

    name: str
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, name: str, key: str) -> HashedKey:
        """Raises ConfigError for a name with other than letters, digits, `_` and `-`, or a key that can be guessed."""
        if not NAME.fullmatch(name):
            raise ConfigError(f"API key name {name!r}: 1 to 64 letters, digits, _ and -")
        if not SHORTEST <= len(key) <= LONGEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"API key {name}: {SHORTEST} to {LONGEST} printable characters without spaces")
        salt = secrets.token_bytes(16)
        return cls(name, salt, digest(key, salt))

    def matches(self, key: str) -> bool:
        return hmac.compare_digest(self.digest, digest(key, self.salt))

    def line(self) -> str:
        return f"{self.name}:{self.salt.hex()}:{self.digest.hex()}"


def digest(key: str, salt: bytes) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "replace"), salt=salt, digest_size=32).digest()


def new_key() -> str:
    """256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


class Keys:
    """Whose key it is. Without any, nobody is asked for one."""

    def __init__(self, keys: Iterable[HashedKey] = ()) -> None:
        self._keys = tuple(keys)
        names = [key.name for key in self._keys]
        if len(set(names)) != len(names):
            raise ConfigError("API keys: two have the same name")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, presented: str) -> str | None:
        """The name of the key, or None. Takes as long for a wrong key as for a right one."""
        found = None
        for key in self._keys:
            if key.matches(presented[: LONGEST + 1]):
                found = key.name
        return found


def read_keys(path: Path) -> Keys:
    """A file of `name:salt:hash` lines. Raises ConfigError for a line of another form, or a file others may write."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o022:
            raise ConfigError(f"{path}: others may write to it; chmod 600 it")
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it should hold the hashes of API keys") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if not match:
            raise ConfigError(f"{path}:{number}: is no name:salt:hash; make a key anew")
        found.append(HashedKey(match["name"], bytes.fromhex(match["salt"]), bytes.fromhex(match["digest"])))
    return Keys(found)


def add_key(path: Path, name: str) -> str:
    """Make a key, keep its hash in the file (0600, written whole), return the key: it is shown once.

    Raises ConfigError for a name that is taken.
    """
    key = new_key()
    lines = path.read_text().splitlines() if path.exists() else []
    hashed = HashedKey.of(name, key)
    if any(line.startswith(f"{name}:") for line in lines):
        raise ConfigError(f"{path}: there is a key {name} already; take another name, or remove its line")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600 from the start
    with os.fdopen(handle, "w") as file:
        file.write("\n".join([*lines, hashed.line()]) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(written, path)
    return key
