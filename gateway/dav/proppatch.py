# SPDX-License-Identifier: Apache-2.0
"""PROPPATCH (RFC 4918, section 9.2): setting and removing properties, all of them or none.

Answers for reading what is wanted, for which property is whose, and for an answer that says of each what became of it.
What may be set to what, `glancefs.tree` decides.

Threading: pure functions, but for `Patch.apply`, which belongs to one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from xml.etree.ElementTree import Element

from wsgidav import xml_tools
from wsgidav.dav_error import DAVError
from wsgidav.util import add_property_response

from gateway.dav.properties import LAST_MODIFIED, attribute_of
from gateway.dav.propfind import MOST_NAMES
from gateway.dav.xml import LANG, children, serialized, split_name, text_of
from gateway.problems import problem_of
from glancefs.errors import Forbidden, GlancefsError, InvalidImage, InvalidRequest
from glancefs.registries.dead_properties import MAX_PROPERTY_NAME, MAX_PROPERTY_VALUE
from glancefs.tree import Entry, EntryKind
from glancefs.tree.attributes import PROPERTY
from glancefs.tree.entries import MTIME, mtime_text
from glancefs.tree.share import SharedTree

_WIN32_MODIFIED: Final = "{urn:schemas-microsoft-com:}Win32LastModifiedTime"
"""What Explorer says in order to keep the time of a file that it copies."""
_MTIME: Final = PROPERTY + MTIME
_BILLION: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One property that is to be set, or to be removed (None)."""

    name: str
    element: Element | None


@dataclass(slots=True, kw_only=True)
class Patch:
    """What a PROPPATCH does, by whose the properties are; a later step outdoes an earlier one for the same property."""

    attributes: dict[str, str | None]
    """Of the image, without their prefix."""
    dead: dict[str, str | None]
    mtime_ns: int | None = None
    failures: dict[str, GlancefsError]
    """What can't be, by the property's name."""


def steps_of(root: Element | None) -> tuple[Step, ...]:
    """Read the body. Raises DAVError (400)."""
    if root is None or root.tag != "{DAV:}propertyupdate":
        raise DAVError(HTTPStatus.BAD_REQUEST, "The body of a PROPPATCH is to be a propertyupdate.")
    steps: list[Step] = []
    for action in children(root):
        if action.tag not in {"{DAV:}set", "{DAV:}remove"}:
            continue
        for prop in action.iterfind("{DAV:}prop"):
            lang = prop.get(LANG, action.get(LANG, root.get(LANG)))
            for child in children(prop):
                if lang is not None:
                    child.attrib.setdefault(LANG, lang)
                steps.append(Step(name=child.tag, element=child if action.tag == "{DAV:}set" else None))
    if not steps or len(steps) > MOST_NAMES:
        raise DAVError(HTTPStatus.BAD_REQUEST, f"A propertyupdate names 1 to {MOST_NAMES} properties.")
    return tuple(steps)


def patch_of(steps: tuple[Step, ...], *, entry: Entry, tree: SharedTree) -> Patch:
    """Give what the steps come to. Changes nothing; what can't be is among the failures."""
    patch = Patch(attributes={}, dead={}, failures={})
    for step in steps:
        try:
            _take(patch, step, entry, tree)
        except GlancefsError as error:
            patch.failures[step.name] = error
    return patch


def _take(patch: Patch, step: Step, entry: Entry, tree: SharedTree) -> None:
    attribute = attribute_of(step.name)
    if attribute is not None:
        text = None if step.element is None else text_of(step.element)
        tree.check_attribute(entry, attribute, text)
        patch.attributes[attribute] = text
        return
    if step.name == LAST_MODIFIED and step.element is not None:
        patch.mtime_ns = _time(text_of(step.element))
        return
    if split_name(step.name)[0] == "DAV:":
        raise Forbidden(f"{step.name} follows from other things and can't be set.")
    if not entry.is_changeable:
        raise Forbidden(f"{entry.path!r} belongs to somebody else.")
    if entry.image is None and entry.kind is not EntryKind.FOLDER:
        raise Forbidden("Properties of others are kept of images and folders only.")
    value = None if step.element is None else serialized(step.element)
    if len(step.name) > MAX_PROPERTY_NAME or len(value or "") > MAX_PROPERTY_VALUE:
        raise InvalidRequest(f"A property may take {MAX_PROPERTY_VALUE} characters.")
    if step.name == _WIN32_MODIFIED and step.element is not None:
        patch.mtime_ns = _time(text_of(step.element))
    patch.dead[step.name] = value


def apply(patch: Patch, *, entry: Entry, tree: SharedTree) -> None:
    """Make the changes: those that may still be refused first. Raises GlancefsError."""
    if patch.dead:
        tree.change_dead_properties(
            entry,
            values={name: value for name, value in patch.dead.items() if value is not None},
            removed=[name for name, value in patch.dead.items() if value is None],
        )
    attributes: Mapping[str, str | None] = patch.attributes
    if patch.mtime_ns is not None:
        if entry.image is None:
            entry = tree.set_times(entry, patch.mtime_ns)
        else:
            attributes = {_MTIME: mtime_text(patch.mtime_ns), **attributes}
    if attributes:
        tree.describe(entry, attributes)


def answer(steps: tuple[Step, ...], failures: Mapping[str, GlancefsError], *, href: str) -> bytes:
    """Write the multi-status: each property as it went, or as failed with the others (424)."""
    said: list[tuple[str, Any]] = []
    for name in dict.fromkeys(step.name for step in steps):
        if name in failures:
            said.append((name, DAVError(problem_of(failures[name]).status)))
        else:
            said.append((name, DAVError(HTTPStatus.FAILED_DEPENDENCY) if failures else None))
    root: Any = xml_tools.make_multistatus_el()
    add_property_response(root, href, said)
    if failures:
        text = "\n".join(problem_of(error).detail for error in failures.values())
        xml_tools.etree.SubElement(root[0], "{DAV:}responsedescription").text = text
    body: bytes = xml_tools.xml_to_bytes(root)
    return body


def _time(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text.strip()).timestamp()) * _BILLION
    except (ValueError, TypeError, OverflowError):
        raise InvalidImage(f"{text[:40]!r} is no date.", field="mtime") from None
