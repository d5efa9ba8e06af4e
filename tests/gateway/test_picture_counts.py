"""How many pictures a request may ask for."""

from __future__ import annotations

import httpx2
import pytest

from gateway.serving import serving
from relight.gateway.settings import Limits


@pytest.mark.parametrize(
    ("path", "few", "many", "param"),
    [
        ("/v1/images/generations", {"prompt": "x", "n": 2}, {"prompt": "x", "n": 3}, "n"),
        ("/api/jobs", {"request": {"prompt": "x", "batch": 2}}, {"request": {"prompt": "x", "batch": 3}}, "request"),
    ],
)
def test_more_pictures_than_the_settings_allow_are_refused(
    path: str, few: dict[str, object], many: dict[str, object], param: str
) -> None:
    with serving(limits=Limits(output_pictures=2)) as served, httpx2.Client(base_url=served.url, timeout=20) as client:
        assert client.post(path, json=few).status_code in (200, 202)
        refused = client.post(path, json=many)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == param and "2 pictures" in refused.json()["error"]["message"]
