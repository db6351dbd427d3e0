# SPDX-License-Identifier: Apache-2.0
"""The contract of the use cases over those of a real server.

Threading: see the contract.
"""

from __future__ import annotations

from pathlib import Path

from tests.contract.use_case_contract import UseCaseContract
from tests.support.use_cases import Far


class TestUseCasesFarAway(UseCaseContract):
    def make(self, folder: Path) -> Far:
        return Far(folder)
