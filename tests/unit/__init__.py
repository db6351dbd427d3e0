# SPDX-License-Identifier: Apache-2.0
"""Pure tests: no server, no store, milliseconds each."""
