# SPDX-License-Identifier: Apache-2.0
"""``python -m glancefs`` is the glancefs command."""

import sys

from glancefs.cli import main

sys.exit(main())
