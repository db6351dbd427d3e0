# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door: the tree of images, as a mount shows it, over HTTP (RFC 4918)."""
