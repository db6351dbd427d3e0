# SPDX-License-Identifier: Apache-2.0
"""Staging: where files are written in any order before they become images."""

from glancefs.staging.area import KEEP_FOR, Staging, sweep_staged
from glancefs.staging.shared import SharedArea, SharedFiles, sweep_shared
from glancefs.staging.sidecar import Said, StagedState
from glancefs.staging.upload import Follow, Follower, StagedUpload

__all__ = [
    "KEEP_FOR",
    "Follow",
    "Follower",
    "Said",
    "SharedArea",
    "SharedFiles",
    "StagedState",
    "StagedUpload",
    "Staging",
    "sweep_shared",
    "sweep_staged",
]
