# SPDX-License-Identifier: Apache-2.0
"""What every registry promises, as tests: one suite, run over each backend.

Answers for the sentences of `glancefs.registries.base`. A backend's test class says how to open one; the tests are
in three parts: `registry_keeping`, `registry_lists` and `registry_company`.

Threading: see the parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from glancefs.registries.base import Registry
from tests.contract.registry_company import RegistryCompany
from tests.contract.registry_keeping import RegistryKeeping
from tests.contract.registry_lists import ListsMachine, RegistryLists
from tests.contract.registry_model import an_image


class RegistryContract(RegistryKeeping, RegistryLists, RegistryCompany):
    """The whole contract. A backend's class adds `open`."""

    examples: ClassVar[int] = 15
    """How many sequences of changes and lists are tried."""

    @staticmethod
    def open(folder: Path) -> Registry:
        """Open the registry of a folder, which is made if there is none; many processes may do so."""
        raise NotImplementedError

    @staticmethod
    def forget(folder: Path) -> None:
        """Say that the registry of a folder is closed, and not used any longer."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Name the folder of the registry under test."""
        return tmp_path / "registry"

    @pytest.fixture
    def registry(self, folder: Path) -> Iterator[Registry]:
        """Open an empty registry."""
        registry = self.open(folder)
        yield registry
        registry.close()

    def test_a_registry_keeps_an_identity_that_no_other_has(self, registry: Registry, folder: Path) -> None:
        identity = registry.identity()
        registry.add(an_image())
        again, other = self.open(folder), self.open(folder.with_name("other"))
        identities = [again.identity(), other.identity()]
        again.close()
        other.close()
        assert identity.isascii()
        assert identity.isalnum()
        assert identities[0] == registry.identity() == identity != identities[1]

    def test_lists_are_what_the_promises_say(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.check_lists(tmp_path_factory, examples=self.examples)

    def check_lists(self, tmp_path_factory: pytest.TempPathFactory, *, examples: int) -> None:
        """Try so many sequences of changes and lists."""
        contract = self

        class Machine(ListsMachine):
            def __init__(self) -> None:
                super().__init__()
                self.folder = tmp_path_factory.mktemp("registry")
                self.registry = contract.open(self.folder)

            def teardown(self) -> None:
                self.registry.close()
                contract.forget(self.folder)

        run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=25))
