# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_rsync` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_rsync as near

pytestmark = [pytest.mark.soak, pytest.mark.needs("rsync")]

globals().update(taken_from(near))
