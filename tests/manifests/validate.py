#!/usr/bin/env python3
"""Validates every manifest that the tools render against the OpenAPI of Kubernetes, and custom resources against their CRD.

usage: validate.py [--bundle DIR]

Read are the rendered files of all golden cases (tools/*/tests/golden/*/rendered.txt). Built-in kinds are checked strictly
(an unknown field is a mistake) against the schemas of the PyPI package kubernetes-validate, for each version below. Custom
resources are checked against the CRD in DIR, a folder made by scripts/bundle; without one against the excerpts in schemas/.
A kind that nobody knows is a failure. Ends in 1 when anything is wrong, in 3 when the package is missing.
"""
import copy
import functools
import glob
import json
import os
import sys
from collections import Counter

VERSIONS = ["1.35", "1.36", "1.37"]
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

try:
    import jsonschema
    import yaml
    from kubernetes_validate import utils
except ImportError as missing:
    print(f"validate.py: {missing}; pip install kubernetes-validate==1.37.0", file=sys.stderr)
    sys.exit(3)


def rendered():
    """Every object of every golden case: the case, the file, the object."""
    for path in sorted(glob.glob(os.path.join(ROOT, "tools/*/tests/golden/*/rendered.txt"))):
        case = os.path.relpath(os.path.dirname(path), os.path.join(ROOT, "tools")).replace("/tests/golden", "")
        name, lines = None, []
        with open(path, encoding="utf-8") as file:
            for line in [*file, "# end\n"]:
                # A file's path stands before it; inside of a manifest no line begins so.
                if line.startswith("# "):
                    if name and name.endswith(".yaml") and name != "kustomization.yaml":
                        for document in yaml.safe_load_all("".join(lines)):
                            yield case, name, document
                    name, lines = line[2:].strip(), []
                else:
                    lines.append(line)


def closed(schema):
    """A CRD's schema as JSON Schema that refuses what an API server would prune or refuse."""
    if not isinstance(schema, dict):
        return schema
    schema = copy.copy(schema)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    for key in ["properties"]:
        if key in schema:
            schema[key] = {name: closed(one) for name, one in schema[key].items()}
    for key in ["items", "additionalProperties"]:
        if key in schema:
            schema[key] = closed(schema[key])
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and "properties" in schema and not open_ended:
        schema["additionalProperties"] = False
    return schema


def of_crd(crd):
    group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
    for version in crd["spec"]["versions"]:
        schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
        schema.setdefault("properties", {}).update(
            apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"}
        )
        yield (f"{group}/{version['name']}", kind), closed(schema)


def custom_schemas(bundle):
    """Schemas of custom kinds with the source that they are from."""
    known = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "tests/manifests/schemas/*.yaml"))):
        with open(path, encoding="utf-8") as file:
            for crd in yaml.safe_load_all(file):
                for key, schema in of_crd(crd):
                    known[key] = ("excerpt of the CRD", schema)
    for path in sorted(glob.glob(os.path.join(bundle, "*"))) if bundle else []:
        if os.path.isfile(path) and not path.endswith(".txt"):
            with open(path, encoding="utf-8") as file:
                for document in yaml.safe_load_all(file):
                    if document and document.get("kind") == "CustomResourceDefinition":
                        for key, schema in of_crd(document):
                            known[key] = (f"CRD of {os.path.basename(path)}", schema)
    return known


def main():
    args = sys.argv[1:]
    if args and (args[0] != "--bundle" or len(args) != 2):
        sys.exit(__doc__)
    custom = custom_schemas(args[1] if args else None)
    objects, seen = [], set()
    for case, name, value in rendered():
        text = json.dumps(value, sort_keys=True)
        if text not in seen:
            seen.add(text)
            objects.append((case, name, value))
    if not objects:
        sys.exit("validate.py: no rendered manifest was found")
    # One schema file is asked for again and again: it is read once.
    utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)
    wrong, by_source = [], Counter()
    for version in VERSIONS:
        if version not in {utils.major_minor(one) for one in utils.all_versions()}:
            wrong.append(f"the package has no schemas of Kubernetes {version}")
            continue
        for case, name, value in objects:
            where = f"{version}: {case}: {name}"
            key = (value["apiVersion"], value["kind"])
            try:
                if key in custom:
                    source, schema = custom[key]
                    jsonschema.Draft202012Validator(schema).validate(value)
                else:
                    source = "OpenAPI"
                    utils.validate(value, version, strict=True)
                by_source[version, source] += 1
            except utils.SchemaNotFoundError:
                wrong.append(f"{where}: nobody knows {key[1]} of {key[0]}")
            except jsonschema.ValidationError as error:
                path = ".".join(str(part) for part in error.absolute_path)
                wrong.append(f"{where}: {path}: {error.message[:300]}")
    for line in wrong:
        print(line, file=sys.stderr)
    for version in VERSIONS:
        parts = [f"{count} {source}" for (of, source), count in sorted(by_source.items()) if of == version]
        valid = sum(count for (of, _), count in by_source.items() if of == version)
        print(f"Kubernetes {version}: {valid} of {len(objects)} manifests are valid ({', '.join(parts)})")
    sys.exit(1 if wrong else 0)


main()
