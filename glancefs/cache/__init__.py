# SPDX-License-Identifier: Apache-2.0
"""What was read of images over the network, kept in a local folder."""

from glancefs.cache.cache import BlockCache
from glancefs.cache.image import CachedImage

__all__ = ["BlockCache", "CachedImage"]
