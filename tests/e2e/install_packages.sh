#!/bin/sh
# Installs what the end-to-end tests need, and the packages that are named; their services are kept
# from starting.
set -eu
packages="docker.io docker-registry containerd podman buildah skopeo umoci prometheus iproute2 iptables procps util-linux zsh fish groff man-db $*"
missing=''
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
as_root=''
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || { echo "needs root to install:$missing" >&2; exit 1; }
    as_root='sudo -n'
fi
# invoke-rc.d asks this file whether it may start a service: 101 is no.
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then
    $as_root mv "$policy" "$policy.before-p2pdist"
fi
restore() {
    $as_root rm -f "$policy"
    [ ! -e "$policy.before-p2pdist" ] || $as_root mv "$policy.before-p2pdist" "$policy"
}
trap restore EXIT INT TERM
printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
$as_root chmod 755 "$policy"
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
