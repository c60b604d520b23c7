#!/bin/sh
# Builds helm and kubeconform, and what manifests are checked against, into a directory: sh install_tools.sh DIR
set -eu
HELM=v3.21.4
KUBECONFORM=v0.8.0
KUBERNETES=v1.34.4
OPERATOR=v0.85.0
made="$HELM $KUBECONFORM $KUBERNETES $OPERATOR $(cksum < "$(dirname "$0")/schemas.py")"
if [ "$(cat "$1/stamp" 2>/dev/null)" = "$made" ]; then exit 0; fi
mkdir -p "$1"
directory=$(cd "$1" && pwd)
python=$directory/../bin/python
GOBIN=$directory go install "helm.sh/helm/v3/cmd/helm@$HELM"
GOBIN=$directory go install "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM"
module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
"$python" -m tests.helm.schemas "$directory/schemas" \
    "$(module "k8s.io/kubernetes@$KUBERNETES")" \
    "$(module "github.com/prometheus-operator/prometheus-operator@$OPERATOR")"
echo "$made" > "$1/stamp"
