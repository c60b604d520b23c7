"""The script that finds a Python, run with a PATH of our making."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "p2pdist" / "demo" / "preflight.sh"
OLD_PYTHON = """#!/bin/sh
case "$1" in
--version) echo 'Python 3.9.2' ;;
*) exit 1 ;;
esac
"""


FULL_DISK = """#!/bin/sh
echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'
echo '/dev/sda1 90000000 89500000 500000 99% /'
"""


def preflight(
    tmp_path: Path, names: dict[str, str], tmp_mb: str = "0"
) -> subprocess.CompletedProcess[str]:
    """Run it where only `names` and the shell's own tools are found."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, script in {"uname": "#!/bin/sh\necho Linux\n", **names}.items():
        (bin_dir / name).write_text(script)
        (bin_dir / name).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), str(tmp_path / "venv"), tmp_mb],
        env={"PATH": str(bin_dir), "TMPDIR": "/where/it/runs"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_existing_environment_is_left_alone(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")

    assert preflight(tmp_path, {}).returncode == 0


def test_another_system_is_refused(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"uname": "#!/bin/sh\necho Darwin\n"})

    assert done.returncode == 1
    assert "needs Linux, this is Darwin" in done.stderr


def test_an_old_python_names_the_package_to_install(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"python3": OLD_PYTHON})

    assert done.returncode == 1
    assert "found Python 3.9.2" in done.stderr
    assert "apt-get install python3.11" in done.stderr


def test_no_python_at_all_names_the_package_to_install(tmp_path: Path) -> None:
    done = preflight(tmp_path, {})

    assert done.returncode == 1
    assert "fix: apt-get install python3 python3-venv" in done.stderr


def test_a_python_without_venv_names_the_package_to_install(tmp_path: Path) -> None:
    no_venv = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexit 0\n'

    done = preflight(tmp_path, {"python3": no_venv})

    assert done.returncode == 1
    assert "fix: apt-get install python3-venv" in done.stderr


def test_a_full_disk_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    done = preflight(tmp_path, {"df": FULL_DISK})

    assert done.returncode == 1
    assert f"{tmp_path} has 500 MB free, this needs 1000 MB; fix: make room" in done.stderr


def test_an_existing_environment_does_not_hide_a_full_temporary_disk(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")

    done = preflight(tmp_path, {"df": FULL_DISK}, tmp_mb="3000")

    assert done.returncode == 1
    assert "/where/it/runs has 500 MB free, this needs 3000 MB" in done.stderr
    assert "set TMPDIR" in done.stderr


def test_the_script_is_executable_by_sh_alone() -> None:
    assert subprocess.run(["/bin/sh", "-n", str(SCRIPT)], check=False).returncode == 0
    assert os.access(SCRIPT, os.R_OK)
