# SPDX-License-Identifier: Apache-2.0
"""The tree: what images look like as files, the same for every door that shows files."""

from glancefs.tree.copying import Copied, Failure
from glancefs.tree.entries import Entry, EntryKind, Listed, Outlined
from glancefs.tree.tree import ImageTree, TreeChange, TreeChanges

__all__ = ["Copied", "Entry", "EntryKind", "Failure", "ImageTree", "Listed", "Outlined", "TreeChange", "TreeChanges"]
