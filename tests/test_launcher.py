"""./relight on machines made of a few shell scripts: what it finds, installs, prints, and what it leaves alone."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
TOOLS = "cat cmp cp cut env grep head ln ls mkdir mktemp mv pwd readlink rm sed sh tail".split()

# Everything it is asked goes to $LOG; `uv venv` makes a Python that prints how it was called.
UV = """
echo "uv $* offline=${UV_OFFLINE:-} index=${UV_DEFAULT_INDEX:-}" >>"$LOG"
case $1 in
    --version) echo "uv 0.9.1 (2026-01-01)" ;;
    venv)
        for folder; do :; done
        mkdir -p "$folder/bin"
        printf '#!/bin/sh\\n[ "$1" = -I ] || echo "python $* in $(pwd)"\\n' >"$folder/bin/python"
        "$CHMOD" +x "$folder/bin/python" ;;
esac
"""

# A python3 that is not 3.12. Its pip "installs" $FAKE_UV.
PYTHON311 = """
echo "python3 $*" >>"$LOG"
case "$*" in
    *"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"-m pip --version"*) ;;
    *"--target "*) mkdir -p "$5/bin" && cp "$FAKE_UV" "$5/bin/uv" ;;
    *"-m pip install"*) cp "$FAKE_UV" "${0%/*}/uv" ;;
    *) exit 1 ;;
esac
"""

APT = 'echo "apt-get $*" >>"$LOG"'


@dataclass
class Machine:
    """A PATH with only what a test puts there, an empty home, and a checkout with a lock file."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("bin", "home", "checkout", "elsewhere"):
            (self.folder / name).mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        shutil.copy(REPOSITORY / "relight", self.checkout)
        (self.checkout / "uv.lock").write_text("version = 1\n")
        self.command("uname", 'case $1 in -s) echo Linux ;; -m) echo x86_64 ;; *) echo "Linux x86_64" ;; esac')
        self.command("ldconfig", "echo libvulkan.so.1; echo libgomp.so.1")
        self.user(1000)
        self.fake_uv = self.command("uv", UV, self.folder / "uv")

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    @property
    def tools(self) -> Path:
        return self.home / ".local/share/relight/tools"

    @property
    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def asked(self, start: str) -> list[str]:
        """Lines of the log that begin so; never empty, so that no claim about them is an empty one."""
        lines = [line for line in self.log if line.startswith(start)]
        assert lines, self.log
        return lines

    def command(self, name: str, body: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def user(self, number: int) -> None:
        self.command("id", f"echo {number}")

    def run(self, *arguments: str, script: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script or self.checkout / "relight", *arguments],
            cwd=self.folder / "elsewhere",
            env={
                "PATH": str(self.bin),
                "HOME": str(self.home),
                "LOG": str(self.folder / "log"),
                "FAKE_UV": str(self.fake_uv),
                "CHMOD": shutil.which("chmod") or "/bin/chmod",
            }
            | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_uv_in_the_path_is_used_and_the_program_started_where_the_user_is(machine: Machine) -> None:
    machine.command("uv", UV)
    run = machine.run("generate", "a red cube")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"python -P -m relight generate a red cube in {machine.folder}/elsewhere\n"
    assert "--require-hashes" in machine.asked("uv pip sync")[0]
    assert not machine.tools.exists()


def test_a_second_run_asks_nothing_of_uv(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.run("demo")
    asked = machine.log
    again = machine.run("demo")
    assert (again.stderr, machine.log) == ("", asked)


def test_a_changed_lock_is_installed(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.run("demo")
    asked = len(machine.log)
    (machine.checkout / "uv.lock").write_text("version = 2\n")
    machine.run("demo")
    assert any(line.startswith("uv pip sync") for line in machine.log[asked:])


def test_a_symlink_from_elsewhere_finds_the_checkout(machine: Machine) -> None:
    machine.command("uv", UV)
    first = machine.bin / "relight"
    first.symlink_to("../checkout/relight")
    second = machine.home / "rl"
    second.symlink_to(first)
    assert machine.run("demo", script=second).returncode == 0
    assert (machine.checkout / ".venv/relight.lock").exists()


@pytest.mark.parametrize("broken", ["exit 127", "echo 'uv 0.4.9'"], ids=["failing shim", "too old"])
def test_an_unusable_uv_is_passed_over(machine: Machine, broken: str) -> None:
    machine.command("uv", broken)
    machine.command("uv", UV, machine.home / ".local/bin")
    assert machine.run("demo").returncode == 0
    assert not machine.tools.exists()


def test_a_missing_uv_is_installed_from_a_venv_that_is_thrown_away(machine: Machine) -> None:
    machine.command("python3", PYTHON311)
    run = machine.run("demo")
    assert run.returncode == 0, run.stderr
    assert [path.name for path in machine.tools.iterdir()] == ["uv"]
    assert not any("--target" in line for line in machine.log)


def test_without_ensurepip_uv_is_installed_by_pip_into_a_folder(machine: Machine) -> None:
    machine.command("python3", 'case "$*" in *"-m venv"*) exit 1 ;; esac' + PYTHON311)
    run = machine.run("demo")
    assert run.returncode == 0, run.stderr
    assert [path.name for path in machine.tools.iterdir()] == ["uv"]
    assert any("--target" in line for line in machine.log)


def test_root_without_any_python_gets_one_from_the_package_manager(machine: Machine) -> None:
    machine.user(0)
    new = machine.command("python3", PYTHON311, machine.folder / "package")
    machine.command("apt-get", f'{APT}\ncase "$*" in *python3-venv) cp {new} {machine.bin} ;; esac')
    run = machine.run("demo")
    assert run.returncode == 0, run.stderr
    assert (machine.tools / "uv").exists()


def test_curl_fetches_the_installer_where_no_python_can(machine: Machine) -> None:
    machine.command("curl", """echo 'mkdir -p "$UV_INSTALL_DIR"; cp "$FAKE_UV" "$UV_INSTALL_DIR/uv"' >"$4" """)
    run = machine.run("demo")
    assert run.returncode == 0, run.stderr
    assert [path.name for path in machine.tools.iterdir()] == ["uv"]


def test_the_way_out_is_printed_when_uv_cannot_be_had(machine: Machine) -> None:
    run = machine.run("demo")
    assert run.returncode == 1
    assert "Any one of these helps: python3 with venv or pip, curl, or uv itself" in run.stderr
    assert list(machine.tools.iterdir()) == []


def test_a_missing_loader_without_rights_prints_the_command_and_goes_on(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.command("ldconfig", "echo libgomp.so.1")
    machine.command("apt-get", APT)
    machine.command("sudo", "exit 1")
    run = machine.run("demo")
    assert run.returncode == 0
    assert "computes on the CPU only: run  sudo apt-get install libvulkan1\n" in run.stderr
    assert not any(line.startswith("apt-get") for line in machine.log)


@pytest.mark.parametrize(
    ("manager", "loader"), [("apt-get", "libvulkan1"), ("dnf", "vulkan-loader"), ("pacman", "vulkan-icd-loader")]
)
def test_root_gets_the_missing_loader_installed(machine: Machine, manager: str, loader: str) -> None:
    machine.user(0)
    machine.command("uv", UV)
    machine.command("ldconfig", "echo libgomp.so.1")
    machine.command(manager, f'echo "{manager} $*" >>"$LOG"')
    assert machine.run("demo").returncode == 0
    assert any(line.startswith(manager) and line.endswith(f" {loader}") for line in machine.log)
    assert not any("mesa" in line for line in machine.log)  # drivers are the user's


def test_sudo_is_used_only_where_it_asks_for_no_password(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.command("ldconfig", "echo libgomp.so.1")
    machine.command("apt-get", APT)
    machine.command("sudo", 'echo "sudo $*" >>"$LOG"; [ "$1" = -n ] && shift && "$@"')
    assert machine.run("demo").returncode == 0
    assert any(line.startswith("apt-get") and line.endswith(" libvulkan1") for line in machine.log)
    assert all(line.startswith("sudo -n ") for line in machine.asked("sudo"))


def test_offline_fetches_nothing(machine: Machine) -> None:
    machine.user(0)
    machine.command("python3", PYTHON311)
    machine.command("apt-get", APT)
    machine.command("ldconfig", "true")
    run = machine.run("demo", RELIGHT_OFFLINE="1")
    assert run.returncode == 1
    assert "RELIGHT_OFFLINE=1 keeps relight from fetching it" in run.stderr
    assert machine.log == []


def test_offline_is_told_to_uv(machine: Machine) -> None:
    machine.command("uv", UV)
    assert machine.run("demo", RELIGHT_OFFLINE="1").returncode == 0
    assert all("offline=1" in line for line in machine.asked("uv pip sync"))


def test_the_index_set_for_pip_is_passed_to_uv(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.command("pip", "echo \"global.extra-index-url='https://b'\"; echo \"global.index-url='https://a/simple'\"")
    machine.run("demo")
    assert all("index=https://a/simple" in line for line in machine.asked("uv pip sync"))


def test_an_index_of_uvs_own_comes_before_pips(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.run("demo", PIP_INDEX_URL="https://a/simple", UV_DEFAULT_INDEX="https://c/simple")
    assert all("index=https://c/simple" in line for line in machine.asked("uv pip sync"))


def test_an_installed_but_inactive_pyenv_version_is_found(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.command("python3.12", "exit 127", machine.folder / "pyenv/shims")
    machine.command("python3", "exit 0", machine.folder / "pyenv/versions/3.12.1/bin")
    machine.run("demo", PATH=f"{machine.folder}/pyenv/shims:{machine.bin}")
    (made,) = machine.asked("uv venv")
    assert f"--python {machine.folder}/pyenv/versions/3.12.1/bin/python3 " in made


def test_no_python_312_to_be_had_is_said_with_the_way_out(machine: Machine) -> None:
    machine.command("uv", 'case $1 in venv) echo "no network" >&2; exit 2 ;; esac' + UV)
    run = machine.run("demo")
    assert run.returncode == 1
    assert "no network\n" in run.stderr
    assert "Python 3.12 is needed" in run.stderr
    assert "pyenv install 3.12" in run.stderr


def test_a_failed_installation_is_tried_again_on_the_next_run(machine: Machine) -> None:
    machine.command("uv", UV + 'case $2 in sync) [ -e "$HOME/network" ] ;; esac')
    failed = machine.run("demo")
    assert (failed.returncode, failed.stdout) == (1, "")
    (machine.home / "network").touch()
    assert machine.run("demo").returncode == 0


def test_another_processor_is_refused_by_name(machine: Machine) -> None:
    machine.command("uname", 'case $1 in -s) echo Linux ;; -m) echo aarch64 ;; *) echo "Linux aarch64" ;; esac')
    run = machine.run("demo")
    assert run.returncode == 1
    assert "this is Linux aarch64" in run.stderr


def test_test_installs_the_development_packages_and_hands_its_arguments_to_pytest(machine: Machine) -> None:
    machine.command("uv", UV)
    run = machine.run("test", "-x", "tests/test_docs.py")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"python -m pytest -x tests/test_docs.py in {machine.checkout}\n"
    assert " --dev " in machine.asked("uv export")[0]


def test_all_tests_run_side_by_side_but_for_those_of_faults(machine: Machine) -> None:
    machine.command("uv", UV)
    run = machine.run("test")
    assert run.returncode == 0, run.stderr
    most, faults = run.stdout.splitlines()
    assert " --numprocesses " in most and most.endswith(f"--ignore tests/faults in {machine.checkout}")
    assert faults == f"python -m pytest tests/faults in {machine.checkout}"


def test_development_packages_stay_when_the_lock_changes(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.run("test")
    asked = len(machine.log)
    (machine.checkout / "uv.lock").write_text("version = 2\n")
    machine.run("demo")
    assert any(line.startswith("uv export") and " --dev " in line for line in machine.log[asked:])


def test_check_fails_when_one_of_its_tools_does(machine: Machine) -> None:
    machine.command("uv", UV)
    machine.run("check")
    python = machine.checkout / ".venv/bin/python"
    machine.command("python", 'echo "$3"; [ "$2" != ruff ]', python.parent)
    run = machine.run("check")
    assert run.returncode == 1
    assert run.stdout.split() == ["format", "check"]


@pytest.mark.parametrize("script", ["relight", ".ci/run"])
def test_shellcheck_finds_nothing(script: str) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([shellcheck, REPOSITORY / script], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
