"""Makes values.schema.json: what the chart takes, strictly, with the project's own settings.

python deploy/helm/values_schema.py > deploy/helm/p2pdist/values.schema.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from p2pdist.settings import SECTIONS, TABLES, leaves_of
from p2pdist.settings_kinds import COUNT, DURATION, FLAG, RATE, RATIO, ROOM, WHOLE, Kind

Schema = dict[str, Any]

# What the chart decides itself: addresses, names and files of the pods.
DECIDED: Final = {
    "host": {"state_dir", "dc"},
    "tracker": {"listen", "admin_listen", "identity_dir", "ca_dir", "join"},
    "proxy": {"listen", "exchange_listen", "admin_listen", "key_file", "trackers", "job_trackers",
              "notify_secret_file", "identity_dir"},
    "peer": {"listen", "exchange_listen", "admin_listen", "trackers", "proxies", "into_runtime",
             "runtime_socket", "runtime_namespace", "runtime_hosts_dir", "identity_dir"},
    "upstream": {"password_file", "auth_file", "credential_helper", "ca_file", "cert_file",
                 "cert_key_file"},
}  # fmt: skip
SETTINGS_OF: Final = {
    "peer": ("host", "peer", "store"),
    "proxy": ("host", "proxy", "store"),
    "tracker": ("host", "tracker"),
}
SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# Two directories deep at least: everything below is given to the peer, and deleted at the end.
NODE_DIRECTORY: Final = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*){2,}$"
CIDR: Final = r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|m|k)?$"


def text(description: str = "", *, pattern: str = "", **more: Any) -> Schema:
    schema: Schema = {"type": "string"}
    if description:
        schema["description"] = description
    if pattern:
        schema["pattern"] = pattern
    return schema | more


def flag(description: str = "") -> Schema:
    return {"type": "boolean"} | ({"description": description} if description else {})


def number(description: str, least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "description": description}


def strict(properties: Schema, description: str = "", required: tuple[str, ...] = ()) -> Schema:
    """A table that takes these keys and no other."""
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if description:
        schema["description"] = description
    if required:
        schema["required"] = list(required)
    return schema


def items(schema: Schema, description: str = "") -> Schema:
    made: Schema = {"type": "array", "items": schema}
    return made | ({"description": description} if description else {})


def optional_name(description: str) -> Schema:
    return text(description, pattern=SUBDOMAIN.replace("^", "^(").replace("$", ")?$"))


def texts(description: str = "") -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return schema | ({"description": description} if description else {})


def of_kubernetes(description: str, kind: str = "object") -> Schema:
    """What goes into the manifest as it is; the API server checks it."""
    return {"type": kind, "description": description}


def setting(kind: Kind, help_text: str) -> Schema:
    """A setting of the project; a unit may be left out."""
    if kind is FLAG:
        return flag(help_text)
    if kind in (COUNT, WHOLE):
        return {"type": "integer", "description": help_text}
    if kind.is_list:
        return items({"type": "string"}, help_text)
    if kind.choices:
        return {"enum": list(kind.choices), "description": help_text}
    if kind in (DURATION, RATE, RATIO, ROOM):
        return {"type": ["string", "number"], "description": help_text}
    return text(help_text)


def table(section: str, record: type[Any]) -> Schema:
    decided = DECIDED.get(section, set())
    return {
        leaf.key: setting(leaf.kind, leaf.help)
        for leaf in leaves_of(section, record)
        if leaf.key not in decided
    }


def settings(role: str) -> Schema:
    sections = {name: strict(table(name, SECTIONS[name])) for name in SETTINGS_OF[role]}
    return strict(sections, f"Settings of the {role} that the chart does not decide.")


def resources() -> Schema:
    amount = {"type": ["string", "integer"], "pattern": QUANTITY}
    amounts = {"type": "object", "additionalProperties": amount}
    return strict({"requests": amounts, "limits": amounts}, "Resources of the container.")


def placement() -> Schema:
    return {
        "nodeSelector": texts("Labels of the nodes to run on."),
        "affinity": of_kubernetes("Affinity of the pods."),
        "tolerations": of_kubernetes("Tolerations of the pods.", "array"),
        "priorityClassName": optional_name("Priority class of the pods."),
        "podAnnotations": texts("More annotations of the pods."),
        "podLabels": texts("More labels of the pods."),
    }


def reference(kind: str) -> Schema:
    keys = {
        "name": text(f"Name of the {kind}.", pattern=SUBDOMAIN),
        "key": text("Its key.", pattern=r"^[-._a-zA-Z0-9]+$"),
    }
    return strict(keys, f"A key of a {kind} in the namespace of the release.", ("name", "key"))


def registry() -> Schema:
    files = {
        "passwordSecret": reference("Secret"),
        "authSecret": reference("Secret"),
        "caConfigMap": reference("ConfigMap"),
        "clientCertSecret": text("Secret of type kubernetes.io/tls.", pattern=SUBDOMAIN),
    }
    return strict(table("upstream", TABLES["upstream"]) | files, required=("host",)) | {
        "not": {"required": ["passwordSecret", "authSecret"]},
        "dependencies": {"passwordSecret": ["username"]},
    }


def persistence() -> Schema:
    return strict(
        {
            "enabled": flag("false: an emptyDir."),
            "size": text("Size of the volume.", pattern=QUANTITY),
            "storageClass": optional_name("Empty: the cluster's default."),
        }
    )


def port(description: str) -> Schema:
    return number(description, 1, 65_535)


def peer() -> Schema:
    ports = {
        "mirror": port("What containerd asks, on the node's loopback."),
        "exchange": port("What other nodes ask."),
        "admin": port("Metrics, health and status."),
    }
    update = of_kubernetes("How nodes take up a new version.")
    own = {
        "ports": strict(ports, "Ports on the node."),
        "advertiseNodeIP": flag("Tell others the node's address; false with IPv6."),
        "stateDir": text("Directory on the node.", pattern=NODE_DIRECTORY),
        "settings": settings("peer"),
        "resources": resources(),
        "updateStrategy": update,
        "initSecurityContext": of_kubernetes("Merged over that of what changes the node's files."),
    }
    return strict(own | placement(), "The peer of each node.")


def proxy() -> Schema:
    own = {
        "replicas": number("How many proxies.", 1, 16),
        "settings": settings("proxy"),
        "persistence": persistence(),
        "resources": resources(),
        "podDisruptionBudget": flag("Let drains take one proxy at a time."),
    }
    return strict(own | placement(), "The proxies, which alone read the registries.")


def tracker() -> Schema:
    own = {"settings": settings("tracker"), "persistence": persistence(), "resources": resources()}
    return strict(own | placement(), "Who knows which node holds what.")


def nodes() -> Schema:
    """What concerns containerd's files."""
    directory = text("Directory of config.toml on the nodes.", pattern=NODE_DIRECTORY)
    certs = text("Directory of hosts.toml files.", pattern=f"^$|{NODE_DIRECTORY}")
    runtime = {
        "install": flag("Set the mirror in containerd's files."),
        "configDir": directory,
        "certsDir": certs,
        "tagsFromOrigin": flag("Ask the registry itself what a tag stands for."),
    }
    undo = {
        "nodeSelector": texts("Where a mirror may have been set; empty: every Linux node."),
        "affinity": of_kubernetes("The same by affinity."),
        "deleteStore": flag("Delete what the peers stored as well."),
        "timeoutSeconds": number("How long `helm uninstall` waits for all nodes.", 10, 86_400),
    }
    return {
        "runtime": strict(runtime, "How containerd is pointed at the peer."),
        "undo": strict(undo, "What `helm uninstall` does on every node."),
    }


def policies() -> Schema:
    network = {
        "enabled": flag("Close the ports of tracker and proxies to all but who needs them."),
        "nodeCIDRs": items(text(pattern=CIDR), "Networks of the nodes; empty: anybody."),
        "federationCIDRs": items(text(pattern=CIDR), "Networks of other datacenters."),
        "prometheusNamespace": texts("Labels of the namespace that reads metrics."),
    }
    monitor = {
        "enabled": flag(),
        "interval": text(pattern=r"^([0-9]+(ms|s|m|h))+$"),
        "labels": texts(),
    }
    boards = {"enabled": flag(), "labels": texts(), "annotations": texts()}
    monitoring = {
        "podMonitor": strict(monitor, "Needs the Prometheus operator."),
        "prometheusRule": strict({"enabled": flag(), "labels": texts()}, "Needs it as well."),
        "dashboards": strict(boards, "For Grafana's sidecar."),
    }
    return {
        "networkPolicy": strict(network, "Who may call tracker and proxies."),
        "monitoring": strict(monitoring, "What Prometheus and Grafana read."),
    }


def schema() -> Schema:
    image = {
        "repository": text("Where the nodes pull it from.", minLength=1),
        "tag": text("Empty: the appVersion of the chart."),
        "digest": text("Goes before the tag.", pattern=r"^$|^sha256:[0-9a-f]{64}$"),
        "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "pullSecrets": items(text(pattern=SUBDOMAIN), "Names of Secrets."),
    }
    secrets = {
        "cluster": optional_name("Secret with cluster.secret and proxy.pub; empty: made once."),
        "proxyKey": optional_name("Secret with proxy.key; empty: made once."),
    }
    certificates = {
        "enabled": flag("A certificate for each daemon."),
        "required": flag("Nobody without one is spoken to."),
        "caSecret": text("Secret with ca.key and ca.pem.", pattern=SUBDOMAIN),
        "joinSecret": text("Secret with tokens: peer, proxy-0, proxy-1...", pattern=SUBDOMAIN),
    }
    rules = strict(table("replicate", TABLES["replicate"]), required=("name", "images"))
    log = {
        "level": {"enum": ["debug", "info", "warning", "error"]},
        "format": {"enum": ["auto", "text", "json"]},
    }
    properties = {
        "nameOverride": optional_name("In the place of the chart's name."),
        "fullnameOverride": optional_name("In the place of the release's and chart's names."),
        "global": {"type": "object", "description": "Of a chart around this one; not read."},
        "image": strict(image, "The image of all daemons."),
        "secrets": strict(secrets, "Secrets that are there already."),
        "certificates": strict(certificates, "Who is who, beyond the cluster secret."),
        "dc": text("The datacenter.", minLength=1),
        "memberNetworks": items(text(pattern=CIDR), "Networks of nodes and pods."),
        "registries": items(registry(), "The registries to serve.") | {"minItems": 1},
        "replicate": items(rules, "Images to keep in step."),
        "listenHost": {"enum": ["0.0.0.0", "[::]"], "description": "Listened on."},  # noqa: S104
        "log": strict(log, "What daemons log."),
        "peer": peer(),
        "proxy": proxy(),
        "tracker": tracker(),
    }
    properties |= nodes() | policies()
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of p2pdist"}
    return head | strict(properties)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
