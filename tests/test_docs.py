"""What the pages say is so: import directions, commands, links and files, the lock, no machine's own paths."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from relight import errors

REPOSITORY = Path(__file__).parent.parent
SOURCE = REPOSITORY / "src/relight"
README = (REPOSITORY / "README.md").read_text()
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((REPOSITORY / "docs").glob("*.md"))))

# Beside itself and errors, which everyone may import.
MAY_IMPORT = {
    "errors": set(),
    "graph": set(),
    "sampling": set(),
    "images": set(),
    "prompts": {"models.tokenizers"},
    "models": {"graph"},
    "weights": {"graph"},
    "executors": {"graph", "weights"},
    "planner": {
        "graph",
        "weights",
        "models.tiling",
        "prompts.chunks",
        "executors.base",
        "executors.choices",
        "executors.cores",
        "executors.leaves",
        "executors.null",
        "executors.openvino",
        "workers",
        "jobs",
        "store.recipes",
        "tuning.tables",
        "tuning.tuned",
        "tuning.identity",
    },
    "tuning": {
        "graph",
        "executors",
        "weights.checkpoint",
        "workers",
        "planner",
        "jobs",
        "store.catalogue",
        "store.places",
        "demo",
    },
    "workers": {"graph", "models", "weights", "executors", "sampling", "planner"},
    "jobs": {
        "workers",
        "planner",
        "tuning.pipelines",
        "tuning.tuned",
        "prompts",
        "images",
        "sampling",
        "graph",
        "models",
        "weights",
        "executors.base",
        "executors.cores",
        "store.catalogue",  # where the files of a name are; fetching them is no job's
    },
    "store": {"weights", "executors"},
    "ledger": set(),
    "gateway": set(),
    "llm": {
        "weights",
        "workers.link",
        "workers.parent",
        "workers.patience",
        "workers.process",
        "workers.protocol",
        "executors.cores",
        "store.catalogue",
        "planner",
    },
    "configuration": {"executors.base", "jobs", "planner", "tuning", "sampling", "store", "weights.identify"},
    "doctor": {
        "store",
        "weights",
        "workers",
        "planner.profiles",
        "jobs",
        "demo",
        "configuration",
        "ledger.schema",
        "tuning.pipelines",
    },
    "node": {
        "gateway",
        "ledger",
        "llm",
        "jobs",
        "workers.process",
        "workers.patience",
        "workers.priority",
        "planner",
        "tuning.lacking",
        "store",
        "configuration",
        "images",
        "demo",
    },
    "progress": {"jobs.events", "jobs.output"},
    "demo": set(),
    "cli": {
        "weights",
        "planner",
        "tuning",
        "workers",
        "jobs",
        "store",
        "llm",
        "node",
        "configuration",
        "doctor",
        "demo",
        "progress",
    },
    "__main__": {"cli"},
}


def part_of(file: Path) -> str:
    """The package or module of relight a file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """Dotted names inside relight that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("relight.") for name in names if name.startswith("relight."))


def allowed(part: str, name: str) -> bool:
    permitted = MAY_IMPORT[part] | {part, "errors"}
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in permitted)


MODULES = [file for file in sorted(SOURCE.rglob("*.py")) if file != SOURCE / "__init__.py"]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_one_way(file: Path) -> None:
    assert [name for name in imports(file) if not allowed(part_of(file), name)] == []


@pytest.mark.parametrize(("part", "name"), [("models", "weights.gguf"), ("graph", "models"), ("planner", "executors")])
def test_an_import_against_the_table_is_seen(part: str, name: str) -> None:
    assert not allowed(part, name)


def test_every_package_says_what_it_answers() -> None:
    files = [SOURCE / "__init__.py", *MODULES]
    assert [str(file.relative_to(SOURCE)) for file in files if not ast.get_docstring(ast.parse(file.read_text()))] == []


def test_every_package_is_in_the_readmes_tree() -> None:
    packages = {part_of(file) for file in MODULES if file.name == "__init__.py"}
    tree = set(re.findall(r"(\w+)/ ", README))
    assert packages - tree == set()


def commands(page: str) -> list[str]:
    """Lines of a page's shell blocks that start relight, continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    lines = re.sub(r" *\\\n *", " ", "\n".join(blocks)).splitlines()
    starts = [re.sub(r"^(\w+=\S+ +)+", "", line.split(" #")[0].strip()) for line in lines]
    return [start for start in starts if start.startswith("./relight")]


def test_the_readme_names_the_two_commands() -> None:
    assert {"./relight demo", "./relight test"} <= set(commands("README.md"))


@pytest.mark.parametrize(("page", "command"), [(page, command) for page in PAGES for command in commands(page)])
def test_the_commands_of_the_pages_parse(page: str, command: str) -> None:
    first, *rest = shlex.split(command)[1:]
    if first in ("setup", "test", "check"):  # the launcher's own
        assert f"    {first})\n" in (REPOSITORY / "relight").read_text()
    else:
        from relight.cli import parser

        parser().parse_args([first, *rest])


def headings(page: Path) -> set[str]:
    """Of a page, as links name them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_the_pages_lead_somewhere(page: str) -> None:
    here = REPOSITORY / page
    for link, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", here.read_text()):
        if "://" in link:
            continue
        to = here.parent / link if link else here
        assert to.exists(), link
        assert not heading or heading in headings(to), f"{link}#{heading}"


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_pages_name_are_there(page: str) -> None:
    named = re.findall(r"`([\w/.]+/[\w.]+\.py)`", (REPOSITORY / page).read_text())
    assert [name for name in named if not any((root / name).exists() for root in (REPOSITORY, SOURCE))] == []


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    there = [n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.RelightError)]
    assert sorted(["RelightError", *drawn]) == sorted(there)


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by it: with two of a name nothing is collected."""
    names = sorted(file.name for file in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, following in pairwise(names) if name == following] == []


def test_the_lock_is_of_this_project_and_names_only_pypi() -> None:
    lock_text = (REPOSITORY / "uv.lock").read_text()
    hosts = set(re.findall(r"https?://([^/\"]+)", lock_text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}

    (locked,) = [package for package in tomllib.loads(lock_text)["package"] if package["name"] == "relight"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    requirements = [f"{each['name']}{each.get('specifier', '')}" for each in locked["metadata"]["requires-dist"]]
    development = [f"{each['name']}{each.get('specifier', '')}" for each in locked["metadata"]["requires-dev"]["dev"]]
    assert sorted(requirements) == sorted(project["project"]["dependencies"])
    assert sorted(development) == sorted(project["dependency-groups"]["dev"])
    assert locked["version"] == project["project"]["version"]


def tracked_files() -> list[Path]:
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git, or not its checkout")
    list_files = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # a container's root may not own the checkout
    listed = subprocess.run(list_files, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    own = re.compile(rb"/(work|root|home/\w+)/")
    assert [str(file) for file in tracked_files() if file.is_file() and own.search(file.read_bytes())] == []
