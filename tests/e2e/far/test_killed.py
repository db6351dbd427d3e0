# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_killed` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_killed as near

pytestmark = [pytest.mark.soak]

globals().update(
    taken_from(
        near,
        # It looks into the store for what is staged, which is not there.
        without={
            "test_a_killed_replacement_leaves_the_old_image",
        },
    )
)
