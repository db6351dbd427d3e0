# SPDX-License-Identifier: Apache-2.0
"""The mount: images as files, through FUSE."""
