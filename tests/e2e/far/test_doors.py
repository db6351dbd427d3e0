# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_doors` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_doors as near

pytestmark = [pytest.mark.soak]

globals().update(
    taken_from(
        near,
        # What is open here goes on only while it is there on the server.
        without={
            "test_an_image_deleted_over_rest_vanishes_and_readers_go_on",
        },
    )
)
