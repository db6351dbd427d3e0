# SPDX-License-Identifier: Apache-2.0
"""The use cases spoken over REST: what a mount needs that has neither a data folder nor a database.

`calls` says what is asked, `served` what callers elsewhere are told; `connection` asks, `images` and `folders` are the
use cases at the caller's end.
"""
