# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_posix` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_posix as near

pytestmark = [pytest.mark.soak]

globals().update(taken_from(near))
