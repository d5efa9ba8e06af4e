"""Keys are known by their hashes alone, and the server does not listen to strangers without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from relight.errors import ConfigError
from relight.gateway.keys import HashedKey, Keys, add_key, new_key, read_keys
from relight.gateway.settings import GatewaySettings


def test_a_key_is_known_by_its_file_which_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "deep/keys"
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    keys = read_keys(path)
    assert (keys.owner(ann), keys.owner(bob), keys.owner(ann + "x"), keys.owner("")) == ("ann", "bob", None, None)
    assert ann not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["keys"], "no half-written file stays"


def test_equal_keys_have_different_hashes() -> None:
    key = new_key()
    assert HashedKey.of("a", key).digest != HashedKey.of("a", key).digest
    assert len({new_key() for _ in range(100)}) == 100


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    add_key(tmp_path / "keys", "ann")
    with pytest.raises(ConfigError, match="ann already"):
        add_key(tmp_path / "keys", "ann")
    with pytest.raises(ConfigError, match="same name"):
        Keys([HashedKey.of("a", new_key()), HashedKey.of("a", new_key())])


@pytest.mark.parametrize("content", ["ann", "ann:00:00", "an n:" + "0" * 32 + ":" + "0" * 64, "rl-a-key-in-the-open"])
def test_a_file_of_another_form_is_refused_by_its_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\n{content}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="keys:3"):
        read_keys(path)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    add_key(tmp_path / "keys", "ann")
    (tmp_path / "keys").chmod(0o622)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys(tmp_path / "keys")


@pytest.mark.parametrize("key", ["short", "x" * 600, "with space in the middle", "ключ-ключ-ключ-ключ"])
def test_a_key_that_can_be_guessed_or_not_be_sent_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        HashedKey.of("ann", key)


def test_other_addresses_need_a_key_or_a_word() -> None:
    keys = Keys([HashedKey.of("ann", new_key())])
    for host in ("0.0.0.0", "192.168.1.7", "::", "relight.lan"):
        with pytest.raises(ConfigError, match="serve --new-key"):
            GatewaySettings(host=host)
        GatewaySettings(host=host, keys=keys)
        GatewaySettings(host=host, open_to_network=True)
    for host in ("127.0.0.1", "::1", "localhost"):
        GatewaySettings(host=host)


@pytest.mark.parametrize("origin", ["*", "page.example", "https://page.example/"])
def test_origins_are_named_one_by_one(origin: str) -> None:
    with pytest.raises(ConfigError, match="origin"):
        GatewaySettings(origins=(origin,))
