# SPDX-License-Identifier: Apache-2.0
"""What every store and every registry promises, run over each backend."""
