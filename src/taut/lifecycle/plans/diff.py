"""What changes from one manifest to the next, thing by thing and field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from taut.project.manifest import Manifest

_KINDS: Final = (
    ("datasets", "dataset"),
    ("features", "feature set"),
    ("models", "model"),
    ("graphs", "graph"),
    ("endpoints", "endpoint"),
    ("policies", "policy file"),
    ("receivers", "receiver"),
    ("containments", "containment"),
    ("playbooks", "playbook"),
    ("freezes", "freeze"),
    ("drills", "drill"),
    ("quotas", "quota"),
    ("autoscalers", "autoscaler"),
)
_LISTS: Final = (list, tuple)
_NAMED: Final = frozenset({"columns", "rules", "nodes"})  # lists of named things, compared by name


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One field that differs. `path` is dotted; None stands for absent."""

    path: str
    before: Any
    after: Any


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is added, changed or removed. `kind` is `project`, `bundle` or a kind of declaration."""

    action: Literal["add", "change", "remove"]
    kind: str
    name: str
    fields: tuple[FieldChange, ...] = ()


def diff(old: Manifest | None, new: Manifest) -> tuple[Change, ...]:
    """Return what applying `new` over `old` changes; nothing when both mean the same.

    The project's folder is part of what it means: relative sources are read there.
    """
    before = old or Manifest()
    changes = list(_project_changes(old, new))
    for field, kind in _KINDS:
        left = {spec.name: spec for spec in getattr(before, field)}
        right = {spec.name: spec for spec in getattr(new, field)}
        for name in sorted(left.keys() | right.keys()):
            if name not in left:
                changes.append(Change(action="add", kind=kind, name=name))
            elif name not in right:
                changes.append(Change(action="remove", kind=kind, name=name))
            elif left[name] != right[name]:
                fields = tuple(_fields("", msgspec.to_builtins(left[name]), msgspec.to_builtins(right[name])))
                changes.append(Change(action="change", kind=kind, name=name, fields=fields))
    return tuple(changes)


def _project_changes(old: Manifest | None, new: Manifest) -> Iterator[Change]:
    if old is None:
        yield Change(action="add", kind="project", name=new.project)
        return
    fields = tuple(
        FieldChange(path=name, before=getattr(old, name), after=getattr(new, name))
        for name in ("project", "environment", "root")
        if getattr(old, name) != getattr(new, name)
    )
    if fields:
        yield Change(action="change", kind="project", name=new.project, fields=fields)
    if old.bundle != new.bundle:
        code = FieldChange(path="digest", before=old.bundle, after=new.bundle)
        yield Change(action="change", kind="bundle", name="code", fields=(code,))


def _fields(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _fields(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif path.rpartition(".")[2] in _NAMED and isinstance(before, _LISTS) and isinstance(after, _LISTS):
        left = {item["name"]: item for item in before}
        right = {item["name"]: item for item in after}
        for name in sorted(left.keys() | right.keys()):
            yield from _fields(f"{path}.{name}", left.get(name), right.get(name))
        if list(left) != list(right) and left.keys() == right.keys():
            yield FieldChange(path=f"{path} (order)", before=list(left), after=list(right))
    else:
        yield FieldChange(path=path, before=before, after=after)
