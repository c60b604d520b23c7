"""Makes strict JSON schemas, as kubeconform reads them, of the APIs of Kubernetes and of the
Prometheus operator: a key that they do not know is an error.

    python -m tests.helm.schemas DIR KUBERNETES_MODULE OPERATOR_MODULE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

Schema = dict[str, Any]

CRDS: Final = ("podmonitors", "prometheusrules")
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Their schema says "string"; the API takes numbers as well.
_LOOSE: Final = {"oneOf": [{"type": "string"}, {"type": "number"}]}


def strict(schema: Any) -> Any:
    """The same, closed: no keys but those that are named; texts that may be numbers are both."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string") is True:
        return _LOOSE
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def of_kubernetes(swagger: Schema) -> dict[str, Schema]:
    """Schemas by file name: one for each kind, all of which point into `_definitions.json`."""
    definitions = {name: strict(schema) for name, schema in swagger["definitions"].items()}
    definitions[QUANTITY] = _LOOSE
    files: dict[str, Schema] = {}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            parts = [part for part in (kind["kind"], group, kind["version"]) if part]
            files["-".join(parts).lower() + ".json"] = {
                "$ref": f"_definitions.json#/definitions/{name}"
            }
    return {**files, "_definitions.json": {"definitions": definitions}}


def of_crd(crd: Schema) -> dict[str, Schema]:
    spec = crd["spec"]
    group = spec["group"].split(".")[0]
    files = {}
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        files[f"{spec['names']['kind']}-{group}-{version['name']}.json".lower()] = schema
    return files


def main(directory: Path, kubernetes: Path, operator: Path) -> None:
    swagger = json.loads((kubernetes / "api" / "openapi-spec" / "swagger.json").read_text())
    files = of_kubernetes(swagger)
    for name in CRDS:
        place = operator / "example" / "prometheus-operator-crd"
        files |= of_crd(yaml.safe_load((place / f"monitoring.coreos.com_{name}.yaml").read_text()))
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in files.items():
        (directory / name).write_text(json.dumps(schema))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
