"""What `pip install jaxdiff` gives: a wheel with all that runs, and the command, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import jaxdiff
import train
from jaxdiff.base import shipped
from jaxdiff.cli import main
from jaxdiff.cli import train as training

ROOT = Path(__file__).parent.parent
SOURCES = (
    *("jaxdiff", "configs", "setup.py", "pyproject.toml", "MANIFEST.in"),
    *("requirements.txt", "README.md", "LICENSE"),
)
SMALL = (
    *("system.network.channels=8", "system.network.multipliers=(1,)", "system.network.attention=()"),
    *("batch_size=8", "training.placing=jit", "training.steps=2", "training.log_every=2", "training.show_every=2"),
    "training.save_every=2",
)


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("pip")
    # not imported, as it must be before distutils
    if find_spec("setuptools") is None or int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is not here, or too old")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:  # copied, since pip leaves a build folder beside them
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "source")
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, folder / "source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Its command, in an environment that has jaxdiff from this wheel and takes all else from that of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = next(path for path in folder.glob("*/python*") if path.is_file() and path.stem == "python")
    pip("--python", python, "install", "--no-index", "--no-deps", wheel)
    packages = next(folder.rglob("site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(program, *arguments):
        here = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
        return subprocess.run([python.with_name(program), *arguments], **here)

    return run


def test_the_wheel_has_all_of_the_package(wheel):
    mine = {path for path in (ROOT / "jaxdiff").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted = {path.relative_to(ROOT).as_posix() for path in mine if path.suffix != ".md"}
    wanted |= {f"jaxdiff/shipped/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert there == wanted
    assert "jaxdiff/py.typed" in there


def test_the_command_runs_outside_of_the_checkout(installed):
    assert installed("jaxdiff", "--version").stdout == f"jaxdiff {jaxdiff.__version__}\n"
    done = installed("jaxdiff", "train", "--config", "digits", "--dry_run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "\nthe run     2 steps, " in done.stdout
    wrong = installed("jaxdiff", "sample", "--checkpoint", "x")
    assert (wrong.returncode, wrong.stderr.startswith("jaxdiff sample: argument --checkpoint: ")) == (2, True)


def test_its_configs_build_on_each_other_and_so_may_those_of_users(installed):
    mine = "from configs.mnist_few_steps import config\n"
    script = f"""
from pathlib import Path
import jaxdiff
from jaxdiff.base import code, shipped
Path("mine.py").write_text({mine!r})
for name in [*shipped.names(), "mine.py"]:
    code.load(name)
print(shipped.CONFIGS, len(shipped.names()))
"""
    done = installed("python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "/shipped/configs " in done.stdout
    assert int(done.stdout.split()[-1]) == len(shipped.names())


# --- the one command ------------------------------------------------------------------------------------------------


def test_the_command_is_the_scripts_by_another_name(called, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(main.main)
    assert (code, "jaxdiff evaluate" in out) == (0, True)
    for name, command in main.COMMANDS.items():
        code, out, _ = called(main.main, name, "--help")
        assert code == 0
        assert out.startswith(f"usage: jaxdiff {name} ")
        assert f"{name}.py" not in out
        assert command.stopped.startswith("stopped")
    for given, said in (("trian", "invalid choice: 'trian'"), ("--trian", "unrecognized arguments: --trian")):
        code, _, err = called(main.main, given)
        assert (code, err.startswith("jaxdiff: "), said in err, err.count("\n")) == (2, True, True, 1)
    wrong = ("--config", "nowhere")
    one, other = called(train.main, *wrong), called(main.main, "train", *wrong)
    assert one == (2, "", "train.py: no config file nowhere\n")
    assert other == (2, "", "jaxdiff train: no config file nowhere\n")


def test_what_resumes_is_the_command_that_was_called(monkeypatch):
    for program, called in (("/usr/bin/jaxdiff", "jaxdiff train"), ("train.py", "python train.py")):
        before = ["train"] * (program != "train.py")
        monkeypatch.setattr(sys, "argv", [program, *before, "--config", "a b.py", "--restart", "batch_size=8"])
        assert training.again() == f"{called} --config 'a b.py' batch_size=8"


COMPLETE = """
eval "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
_jaxdiff
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_it_as_it_comes(called, tmp_path):
    _, script, _ = called(main.main, "--completion")
    command = ["zsh", "-f", "-c", 'eval "$1"; print $_comps[jaxdiff]', "zsh", script]
    child = subprocess.run(
        command, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert "_jaxdiff" in child.stdout
    assert child.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_a_shell_completes_it(called, tmp_path):
    code, script, _ = called(main.main, "--completion")
    assert code == 0
    for name in ("runs/mnist", "runs/digits", "configs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "configs" / "mine.py").touch()

    def completed(*words):
        command = ["bash", "-c", COMPLETE, "bash", script, "jaxdiff", *words]
        return set(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split())

    assert completed("") == {*main.COMMANDS, "--help", "--version"}
    assert completed("ev") == {"evaluate"}
    assert completed("train", "--re") == {"--restart"}
    assert completed("train", "--config", "fashion_mnist_sc") == {"fashion_mnist_score"}
    assert {"digits", "configs/mine.py"} <= completed("train", "--config", "")
    assert completed("sample", "--workdir", "runs/m") == {"runs/mnist"}
    assert completed("publish", "") == {"runs/mnist", "runs/digits"}
    assert {"--guidance_scale", "--eta", "--help"} <= completed("sample", "--")
    (tmp_path / "runs" / "$(touch harmed)").mkdir()
    assert {"runs/\\$\\(touch\\", "harmed\\)"} <= completed("sample", "--workdir", "runs/")
    assert not (tmp_path / "harmed").exists()
