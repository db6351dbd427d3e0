# SPDX-License-Identifier: Apache-2.0
"""A real Keystone for the tests: one for the whole session, and whoever they need in it.

Answers for making projects, users, application credentials and tokens. Tests mark themselves with
``needs("keystone")`` and ask for the fixture `keystone`.

Threading: the fixture belongs to the main thread; a `Keystone` may be asked by any.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from tests.support import keystone_service
from tests.support.capabilities import KEYSTONE
from tests.support.processes import Argument, Process, Processes, free_port

DOMAIN = "Default"
START_SECONDS = 120.0
"""How long it may take on a machine that is busy; on others some six seconds."""


@dataclass(slots=True, kw_only=True)
class Account:
    """A user in a project."""

    url: str
    user: str
    user_id: str
    password: str = field(repr=False)
    project: str
    project_id: str
    _token: str | None = field(default=None, repr=False)

    def session(self) -> Session:
        """Ask as this user."""
        return Session(auth=_password(self.url, user=self.user, password=self.password, project=self.project))

    def token(self) -> str:
        """Give a token for the project, the same each time."""
        if self._token is None:
            self._token = self.new_token()
        return self._token

    def new_token(self) -> str:
        """Get a token for the project that nobody has seen."""
        return str(self.session().get_token())

    def application_credential(self, **said: Any) -> tuple[str, str]:
        """Make an application credential; gives its id and its secret. ``said`` are fields of the API's request."""
        body = {"application_credential": {"name": secrets.token_hex(8)} | said}
        made = self.session().post(f"{self.url}/users/{self.user_id}/application_credentials", json=body).json()
        return made["application_credential"]["id"], made["application_credential"]["secret"]


@dataclass(slots=True, kw_only=True)
class Keystone:
    """A running Keystone."""

    process: Process
    url: str
    port: int
    admin: Session
    _projects: dict[str, str] = field(default_factory=dict)
    _roles: dict[str, str] = field(default_factory=dict)

    def account(self, user: str, *, project: str, role: str = "member", password: str | None = None) -> Account:
        """Make a user with a role in a project, which is made if there is none; the user is new."""
        password = password or secrets.token_hex(8)
        project_id = self._project(project)
        made = {"name": user, "domain_id": "default", "password": password}
        user_id = str(self.admin.post(f"{self.url}/users", json={"user": made}).json()["user"]["id"])
        self.admin.put(f"{self.url}/projects/{project_id}/users/{user_id}/roles/{self._role(role)}")
        return Account(
            url=self.url, user=user, user_id=user_id, password=password, project=project, project_id=project_id
        )

    def service(self, name: str, type_: str, url: str) -> None:
        """Tell the catalog of a service and where it is."""
        made = self.admin.post(f"{self.url}/services", json={"service": {"name": name, "type": type_}}).json()
        for interface in ("public", "internal", "admin"):
            said = {"service_id": made["service"]["id"], "interface": interface, "region_id": "RegionOne", "url": url}
            self.admin.post(f"{self.url}/endpoints", json={"endpoint": said})

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        self.admin.delete(f"{self.url}/auth/tokens", headers={"X-Subject-Token": token})

    def _project(self, name: str) -> str:
        known = self._projects.get(name)
        if known is None:
            body = {"project": {"name": name, "domain_id": "default"}}
            known = str(self.admin.post(f"{self.url}/projects", json=body).json()["project"]["id"])
            self._projects[name] = known
        return known

    def _role(self, name: str) -> str:
        if not self._roles:
            found = self.admin.get(f"{self.url}/roles").json()["roles"]
            self._roles = {role["name"]: role["id"] for role in found}
        return self._roles[name]


def start_keystone(processes: Processes, folder: Path, *, port: int | None = None, expiration: int = 3600) -> Keystone:
    """Start a Keystone in a new folder. Its tokens last for ``expiration`` seconds."""
    port = port or free_port()
    folder.mkdir()
    words: list[Argument] = [KEYSTONE, "-P", keystone_service.__file__, folder, str(port), str(expiration)]
    # -P: in the folder of the program is a module of Keystone's own name, this one.
    # What Keystone prints is its own; a request that it refuses may be a traceback there.
    process = processes.start(words, traceback_permitted=True)
    url = process.wait_for_line(r"^keystone is at (\S+)$", timeout=START_SECONDS)[1]
    admin = Session(auth=_password(url, user="admin", password=keystone_service.ADMIN_PASSWORD, project="admin"))
    return Keystone(process=process, url=url, port=port, admin=admin)


def _password(url: str, *, user: str, password: str, project: str) -> v3.Password:
    return v3.Password(
        auth_url=url,
        username=user,
        password=password,
        project_name=project,
        user_domain_name=DOMAIN,
        project_domain_name=DOMAIN,
    )


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """One Keystone for all tests; each makes users and projects of its own."""
    folder = tmp_path_factory.mktemp("keystone")
    with Processes(folder) as processes:
        started = start_keystone(processes, folder / "data")
        yield started
        started.admin.session.close()
