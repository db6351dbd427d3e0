# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_tools` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_tools as near

pytestmark = [pytest.mark.soak]

globals().update(
    taken_from(
        near,
        # What is open here goes on only while it is there on the server.
        without={
            "test_reading_goes_on_while_the_image_is_replaced",
            "test_reading_goes_on_while_the_image_is_removed",
        },
    )
)
