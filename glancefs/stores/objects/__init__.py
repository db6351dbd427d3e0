# SPDX-License-Identifier: Apache-2.0
"""What all object stores share: claims without locks, uploads in parts, reading that resumes, sweeping."""

from glancefs.stores.objects.store import ObjectStore, Timing

__all__ = ["ObjectStore", "Timing"]
