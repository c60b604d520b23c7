"""README.md and docs/install.md by the letter: their commands, run in a bare Debian.

What stands in for the world around it, and nothing more:

- `docker.io` and `dockerd` are there before the text begins, as on a host that runs Docker already.
- apt answers its own questions with yes; pip uses the index that this machine uses.
- Docker Hub and ghcr.io are Debian's docker-registry with certificates of an authority that the
  root trusts: images keep their names, and no setting is touched.
- systemd is not there: `systemctl.py` reads the unit files that the text has one copy.
- A person waits until a daemon that was sent to the background says that it is ready.
"""
