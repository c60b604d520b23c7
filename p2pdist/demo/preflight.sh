#!/bin/sh
# Finds a Python that can make a virtual environment and makes it; says what to install otherwise.
# usage: preflight.sh VENV [MB that must be free in TMPDIR]
set -u
venv=$1 tmp_mb=${2:-0}
# pip, the packages and their cache, with the development tools.
venv_mb=1000

# require_room DIRECTORY MB FIX: ends the script where there is less. Without df it finds out later.
require_room() {
    free_kb=$(df -Pk "$1" 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "${free:-}"; })
    [ -n "$free_kb" ] || return 0
    [ "$((free_kb / 1000))" -ge "$2" ] && return 0
    echo "$1 has $((free_kb / 1000)) MB free, this needs $2 MB; fix: $3" >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || { echo "p2pdist needs Linux, this is $(uname -s)" >&2; exit 1; }
[ "$tmp_mb" = 0 ] || require_room "${TMPDIR:-/tmp}" "$tmp_mb" "make room there, or set TMPDIR to a larger disk"
[ -x "$venv/bin/python" ] && exit 0
case $venv in */*) parent=${venv%/*} ;; *) parent=. ;; esac
require_room "$parent" "$venv_mb" "make room there"
too_old='' no_venv=''
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        too_old=$("$python" --version 2>&1)
        continue
    }
    "$python" -c 'import ensurepip, venv' 2>/dev/null || {
        no_venv=$python
        continue
    }
    "$python" -m venv "$venv" && exit 0
    rm -rf "$venv"
done
if [ -n "$no_venv" ]; then
    echo "$no_venv cannot make virtual environments; fix: apt-get install python3-venv" >&2
elif [ -n "$too_old" ]; then
    echo "found $too_old, p2pdist needs Python 3.11 or newer; fix: apt-get install python3.11 python3.11-venv" >&2
else
    echo "no Python found; fix: apt-get install python3 python3-venv" >&2
fi
exit 1
