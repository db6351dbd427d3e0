# SPDX-License-Identifier: Apache-2.0
"""Staging: where files are written in any order before they become images."""

from glancefs.staging.area import Staging
from glancefs.staging.shared import SharedArea, SharedFiles
from glancefs.staging.sidecar import Said, StagedState
from glancefs.staging.upload import StagedUpload

__all__ = ["Said", "SharedArea", "SharedFiles", "StagedState", "StagedUpload", "Staging"]
