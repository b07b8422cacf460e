"""The reference names the users of each field of a plan, as the code has them."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import generated_reference as reference
import pytest
from plan_field_users import STAGES, users_of

import scanseg
from scanseg.specs import Plan

SOURCE = Path(scanseg.__file__).parent


@cache
def documents():
    """Return for each document of a plan its last place in the plan and its fields."""
    sections = reference._sections(Plan.model_json_schema())
    return {
        name: (
            [part for part in ("plan", *path.split(".")) if part not in ("", "0")][-1],
            set(schema["properties"]),
        )
        for path, name, schema in sections
    }


def modules_of(package):
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((SOURCE / package).rglob("*.py"))]


def annotated(tree):
    """Return the documents that arguments and variables of a module are annotated with."""
    found = defaultdict(set)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            name, annotation = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, annotation = node.target.id, node.annotation
        else:
            continue
        for part in ast.walk(annotation) if annotation else ():
            if isinstance(part, ast.Name) and part.id in documents():
                found[name].add(part.id)
    return found


def accesses(tree):
    """Yield document and name of each access to a field, such as `plan.sampling.order` or `spec.lr`."""
    types = annotated(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            held = types.get(owner) or {name for name, (place, _) in documents().items() if place == owner}
            yield from ((name, node.attr) for name in held if node.attr in documents()[name][1])


def identifiers(tree):
    """Yield the names of attributes, variables, arguments and keywords."""
    for node in ast.walk(tree):
        for kind, key in ((ast.Attribute, "attr"), (ast.Name, "id"), (ast.arg, "arg"), (ast.keyword, "arg")):
            if isinstance(node, kind):
                yield getattr(node, key)


@pytest.mark.parametrize("package", STAGES)
def test_every_use_of_a_field_is_listed(package):
    used = {access for tree in modules_of(package) for access in accesses(tree)}
    assert used
    missing = [(document, field) for document, field in used if package not in users_of(document, field)]
    assert sorted(missing) == []


def test_listed_users_name_the_field_or_its_document():
    names = defaultdict(set)
    for package in (*STAGES, "planning", "evaluation", "reports"):
        names[package] = {name for tree in modules_of(package) for name in identifiers(tree)}
    unused = [
        (document, field, user)
        for document, (_, fields) in documents().items()
        for field in fields
        for user in users_of(document, field).split(", ")
        if user != "all commands" and not {field, document} & names[user]
    ]
    assert sorted(unused) == []


def test_the_table_has_the_users():
    (row,) = [
        line for line in reference.plan_fields().splitlines() if line.startswith("| `inference.window_batch`")
    ]
    assert row.endswith("| inference, training |")
