#!/bin/sh
# make_root.sh SUITE DIRECTORY: makes DIRECTORY/SUITE, a Debian with Docker and containerd, unless it is
# there. It appears as a whole: what an interruption leaves is made again, from the packages that came.
set -eu
suite=$1 directory=$2
[ ! -d "$directory/$suite" ] || exit 0
cannot() { echo "docker-store tests cannot run: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || cannot "debootstrap and containers need root"
command -v debootstrap >/dev/null || cannot "debootstrap is missing (Debian package debootstrap)"
mkdir -p "$directory/packages"
directory=$(cd "$directory" && pwd)
part="$directory/$suite.part"
rm -rf "$part"
# A suite that this debootstrap has not heard of is made as the newest one is.
script=/usr/share/debootstrap/scripts/$suite
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\{0,1\}\(http[^ ]*\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | grep -m1 '/debian/\{0,1\}$' || true)
echo "making a Debian $suite with Docker and containerd in $directory/$suite: 100 MB to fetch, half a minute"
# Nothing in it is ever started by itself: it has no init, and Debian's Docker asks policy-rc.d.
debootstrap --variant=minbase --include=docker.io,docker-cli,containerd,ca-certificates \
    --cache-dir="$directory/packages" "$suite" "$part" ${mirror:+"$mirror"} "$script"
printf '#!/bin/sh\nexit 101\n' >"$part/usr/sbin/policy-rc.d"
rm -rf "$part/var/cache/apt/archives"
mv "$part" "$directory/$suite"
