#!/bin/sh
# Finds a Python that can make a virtual environment and makes it; says what to install otherwise.
set -u
venv=$1
[ "$(uname -s)" = Linux ] || { echo "p2pdist needs Linux, this is $(uname -s)" >&2; exit 1; }
[ -x "$venv/bin/python" ] && exit 0
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
