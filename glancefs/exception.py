# SPDX-License-Identifier: Apache-2.0
"""The errors of the Python client under the names that its documentation gives them (seed: `add_image`).

They are the classes of `glancefs.errors`: whoever catches one of these catches what the server meant.
"""

from glancefs.errors import Duplicate, Forbidden, GlancefsError, NotFound
from glancefs.errors import InvalidRequest as BadRequest
from glancefs.errors import NotAuthenticated as NotAuthorized
from glancefs.errors import Unavailable as ServiceUnavailable

__all__ = ["BadRequest", "Duplicate", "Forbidden", "GlancefsError", "NotAuthorized", "NotFound", "ServiceUnavailable"]
