# SPDX-License-Identifier: Apache-2.0
"""What tells most of the tests of the mount, by way of a server: cp, mv, tar, rsync, qemu-img, attributes, two mounts.

The others are run by `make soak`.

Threading: see there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_qemu, test_rsync, test_semantics, test_tools
from tests.support.mounting import Mount

pytestmark = pytest.mark.needs("rsync", "qemu-img")


@pytest.fixture
def mounted(shared_mount: Mount) -> Iterator[Mount]:
    """One mount for all of them, empty before each."""
    yield shared_mount
    shared_mount.shell("rm -rf -- * .[!.g]* .glance/pending/*")


globals().update(
    taken_from(
        test_tools,
        only={
            "test_cp_adds_an_image_that_is_available_when_it_returns",
            "test_cp_over_an_image_puts_a_new_one_in_its_place",
            "test_mv_onto_an_image_takes_its_place",
            "test_mv_of_a_folder_moves_all_that_is_below_it",
            "test_rm_r_deletes_a_whole_tree",
            "test_dd_with_seek_leaves_a_hole",
            "test_tar_out_and_in_again",
            "test_getfattr_shows_and_setfattr_changes_metadata",
            "test_an_image_carries_its_metadata_over_to_its_replacement",
            "test_a_program_maps_an_image_into_its_memory",
        },
    )
    | taken_from(test_rsync, only={"test_rsync_transfers_what_has_changed_and_deletes_what_is_gone"})
    | taken_from(test_qemu, only={"test_qemu_img_reads_an_image_of_the_mount", "test_qemu_img_creates_an_image"})
    | taken_from(
        test_semantics,
        only={
            *("test_namesakes", "test_queued_images", "test_dot_files", "test_empty_files"),
            *("test_publishing_by_attribute", "test_renaming", "test_computed_attributes", "test_strange_names"),
        },
    )
)
