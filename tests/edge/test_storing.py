# SPDX-License-Identifier: Apache-2.0
"""Stores from the configuration: `glancefs.storing`, as an assembly uses it.

Threading: none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glancefs.assembly import assemble
from glancefs.config import Config
from glancefs.errors import ConfigError, UnsupportedStore
from glancefs.images import Images
from glancefs.model import ImageType, NewImage
from tests.support.mounting import LOCAL

# Nobody answers there: an assembly that asked anybody would fail.
NOWHERE = "http://127.0.0.1:9"
SWIFT = {"stores.swift.auth_url": f"{NOWHERE}/v3", "stores.swift.application_credential_id": "id"} | {
    "stores.swift.application_credential_secret": "hidden"
}
S3 = {"stores.s3.bucket": "images", "stores.s3.endpoint_url": NOWHERE, "stores.s3.region": "here"} | {
    "stores.s3.access_key": "key",
    "stores.s3.secret_key": "hidden",
}


def test_what_is_configured_is_there_and_nobody_is_asked(tmp_path: Path) -> None:
    with assemble(Config.at(tmp_path, SWIFT | S3 | {"default_store": "s3"}), migrate=True) as core:
        assert list(core.stores) == ["file", "swift", "s3"]
        assert [name for name, store in core.stores.items() if store.capabilities.is_remote] == ["swift", "s3"]
        assert core.images.create(LOCAL, NewImage(name="queued", type=ImageType.RAW)).store == "s3"
        refuse_unknown(core.images)


def refuse_unknown(images: Images) -> None:
    new = NewImage(name="queued", type=ImageType.RAW, store="tape")
    with pytest.raises(UnsupportedStore, match=r"no store 'tape' here; there are file, s3, swift\."):
        images.create(LOCAL, new)


@pytest.mark.parametrize(
    ("said", "client", "extra"), [(SWIFT, "swiftclient", "glancefs[swift]"), (S3, "boto3", "glancefs[s3]")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], client: str, extra: str
) -> None:
    for module in [name for name in sys.modules if name.startswith(("glancefs.stores.s", client))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(ConfigError) as raised:
        assemble(Config.at(tmp_path, said), migrate=True)
    assert f"needs the package {client}" in str(raised.value)
    assert extra in str(raised.value)
