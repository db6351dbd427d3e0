# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_posix_files` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_posix_files as near

pytestmark = [pytest.mark.soak]

# What is open here goes on only while it is there on the server.
globals().update(taken_from(near, without={"test_an_open_file_outlives_its_name"}))
