# SPDX-License-Identifier: Apache-2.0
"""What `tests.e2e.mount.test_semantics` shows, with a server between the mount and its images.

Threading: see there.
"""

import pytest

from tests.e2e.far.same import taken_from
from tests.e2e.mount import test_semantics as near

pytestmark = [pytest.mark.soak]

globals().update(
    taken_from(
        near,
        # What differs, the page says: blocks, who one is, and where a full or damaged store is told of.
        without={
            "test_sizes_and_blocks",
            "test_a_full_store",
            "test_lost_data",
            "test_other_people_s_images",
            "test_every_sentence_of_the_page_is_quoted_by_a_test_and_every_quote_is_on_the_page",
        },
    )
)
