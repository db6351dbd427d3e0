# SPDX-License-Identifier: Apache-2.0
"""Where the metadata of images is kept."""
