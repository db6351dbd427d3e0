# SPDX-License-Identifier: Apache-2.0
"""A folder of images belongs to one registry: a wrong path, a lost registry, a disk that is not there cost no image.

Threading: none.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from glancefs.assembly import Assembly, assemble
from glancefs.config import Config
from glancefs.context import RequestContext
from glancefs.errors import ConfigError
from glancefs.model import Image, ImageType, NewImage
from glancefs.stores.base import Swept
from glancefs.stores.owner import Owner
from glancefs.sweep import sweep
from tests.support.cli import Cli

ANN = RequestContext(user="ann")
DATA = b"an image"


def core_at(folder: Path, store: Path) -> Assembly:
    return assemble(Config.at(folder, {"stores.file.path": str(store)}), migrate=True)


def added(core: Assembly) -> Image:
    return core.images.add(ANN, NewImage(name="debian", type=ImageType.RAW), io.BytesIO(DATA))


def swept(core: Assembly) -> Swept:
    return sweep(registry=core.registry, stores=core.stores)


def read(core: Assembly, image: Image) -> bytes:
    with core.images.open(ANN, image.id) as reader:
        return b"".join(reader.iter())


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_a_store_that_two_configurations_name_is_the_first_ones(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with closing(core_at(tmp_path / "first", store)) as first, closing(core_at(tmp_path / "other", store)) as other:
        image = added(first)
        before = files_in(store)
        with pytest.raises(ConfigError, match="keeps the images of another registry") as refused:
            added(other)
        with pytest.raises(ConfigError, match="keeps the images of another registry"):
            swept(other)
        assert f"remove {store / 'registry'}" in str(refused.value)
        assert files_in(store) == before
        assert swept(first) == Swept()
        assert read(first, image) == DATA


def test_a_registry_that_was_lost_and_made_anew_condemns_no_image(tmp_path: Path) -> None:
    with closing(core_at(tmp_path, tmp_path / "store")) as core:
        added(core)
        before = files_in(tmp_path / "store")
    for lost in tmp_path.glob("registry.sqlite*"):
        lost.unlink()
    with closing(core_at(tmp_path, tmp_path / "store")) as anew:
        with pytest.raises(ConfigError):
            added(anew)
        assert files_in(tmp_path / "store") == before
        (tmp_path / "store" / "registry").unlink()
        added(anew)
        assert swept(anew).orphans == 1


def test_images_go_on_being_ours_wherever_they_are_moved_to(tmp_path: Path) -> None:
    with closing(core_at(tmp_path, tmp_path / "store")) as core:
        image = added(core)
    (tmp_path / "store").rename(tmp_path / "moved")
    with closing(core_at(tmp_path, tmp_path / "moved")) as core:
        assert read(core, image) == DATA
        assert swept(core) == Swept()
        added(core)


def test_an_empty_folder_where_images_should_be_takes_none(tmp_path: Path) -> None:
    with closing(core_at(tmp_path, tmp_path / "store")) as core:
        added(core)
    (tmp_path / "mountpoint").mkdir()
    with closing(core_at(tmp_path, tmp_path / "mountpoint")) as core:
        with pytest.raises(ConfigError, match="is empty, and the registry names images in it: is its disk mounted"):
            added(core)
        with pytest.raises(ConfigError):
            swept(core)
        assert files_in(tmp_path / "mountpoint") == set()
        (tmp_path / "mountpoint" / "registry").touch()
        added(core)


def test_many_first_images_at_once_agree_whose_the_folder_is(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with closing(core_at(tmp_path, store)) as core, ThreadPoolExecutor(max_workers=16) as threads:
        images = list(threads.map(lambda _: added(core), range(16)))
        assert {read(core, image) for image in images} == {DATA}
        assert (store / "registry").read_text() == f"{core.registry.identity()}\n"
    assert list(store.glob("registry.*")) == []


def test_of_two_registries_that_take_a_folder_at_once_one_gets_it(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    owners = [Owner(registry=f"registry{number}", has_images=False) for number in range(16)]

    def take(owner: Owner) -> str | None:
        try:
            owner.check(folder, sync=False)
        except ConfigError:
            return None
        return owner.registry

    with ThreadPoolExecutor(max_workers=16) as threads:
        (winner,) = filter(None, threads.map(take, owners))
    assert (folder / "registry").read_text() == f"{winner}\n"
    assert files_in(folder) == {Path("registry")}


def test_folders_from_before_there_were_notes_are_taken_over(tmp_path: Path) -> None:
    with closing(core_at(tmp_path, tmp_path / "store")) as core:
        image = added(core)
        (tmp_path / "store" / "registry").unlink()
    with closing(core_at(tmp_path, tmp_path / "store")) as core:
        assert swept(core) == Swept()
        assert read(core, image) == DATA
        assert (tmp_path / "store" / "registry").read_text() == f"{core.registry.identity()}\n"


def test_the_command_line_says_it_in_one_line(cli: Cli, home: Path) -> None:
    Path("disk").write_bytes(DATA)
    cli("add", "disk")
    cli.env = {"GLANCEFS_STORES_FILE_PATH": str(home / "data/images")}
    cli.where = ("--data", str(home / "other"))
    for words in (["add", "disk"], ["gc"]):
        ran = cli(*words, expect=2)
        assert ran.err.startswith(f"glancefs: {home / 'data/images'} keeps the images of another registry")
        assert ran.err.count("\n") == 1
