"""The files of deploy/ can be read, say what they should, and name no machine's own folders."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from relight.configuration.schema import entries

DEPLOY = Path(__file__).parent.parent / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(DEPLOY / "relight.service")
    return parsed


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_a_users_folder(file: Path) -> None:
    assert re.findall(r"/(?:home|Users|root)\b\S*", file.read_text()) == []


def test_the_unit_starts_again_after_failures_and_stops_in_order(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["Restart"] == "on-failure" and service["KillMode"] == "mixed"
    assert "exec" in service["ExecStart"], "the order to stop has to reach the server itself"
    assert int(service["TimeoutStopSec"]) > 20, "the server drains for 20 s"
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "full"
    assert "PrivateDevices" not in service and "MemoryDenyWriteExecute" not in service


def test_compose_gives_relight_the_card_and_keeps_what_is_worth_keeping(services: dict[str, Any]) -> None:
    relight = services["relight"]
    assert relight["devices"] == ["/dev/dri:/dev/dri"]
    assert {volume.rpartition(":")[2] for volume in relight["volumes"]} == {
        "/data/models",
        "/data/server",
        "/data/cache",
    }
    assert (DEPLOY / relight["build"]["context"] / relight["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])


def test_variables_for_relight_are_settings(services: dict[str, Any]) -> None:
    settings = {entry.variable for entry in entries().values()}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    named = {*services["relight"]["environment"], *re.findall(r"\b(RELIGHT_[A-Z_]+)=", dockerfile)}
    assert named - {"RELIGHT_MODELS"} <= settings


def test_open_webui_asks_relight_by_a_name_it_answers_to(services: dict[str, Any]) -> None:
    environment = services["webui"]["environment"]
    urls = {value for name, value in environment.items() if name.endswith("BASE_URL")}
    assert urls == {"http://relight:8188/v1"}
    assert services["relight"]["environment"]["RELIGHT_SERVER_HOSTNAMES"] == "relight"
    assert environment["ENABLE_IMAGE_GENERATION"] == "true" and environment["IMAGE_GENERATION_ENGINE"] == "openai"
    keys = {value for name, value in environment.items() if name.endswith("API_KEY")}
    assert keys == {"${RELIGHT_API_KEY:-}"}


def test_what_the_image_copies_is_not_ignored() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {name for line in re.findall(r"COPY --chown=relight (.*) \S+\n", dockerfile) for name in line.split()}
    assert copied == kept and all((DEPLOY.parent / name).exists() for name in copied)
