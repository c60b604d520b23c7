#!/bin/sh
# Runs a command where everything that a playbook writes goes to DIRECTORY: the real paths, an unchanged machine.
# usage: unshare --mount --pid --fork in_own_mounts.sh DIRECTORY PYTHON COMMAND…
# PYTHON: the prefix of the Python that hosts have.
set -eu
layers=$1
python=$2
shift 2
mount --make-rprivate /
mount -t proc proc /proc
for place in etc opt usr/local var/lib var/log; do
    mkdir -p "$layers/upper/$place" "$layers/work/$place" "/$place"
    mount -t overlay overlay -o "lowerdir=/$place,upperdir=$layers/upper/$place,workdir=$layers/work/$place" "/$place"
done
mount -t tmpfs tmpfs /run
# Daemons are other users: a Python of root's own becomes one of all users.
case $python in
/root/*)
    mkdir /run/python
    mount --bind "$python" /run/python
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$python"
    mount --bind /run/python "$python"
    ;;
esac
exec "$@"
