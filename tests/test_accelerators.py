"""No silent run on the CPU of a machine that has more: each wrong installation, faked."""

import importlib.metadata
import re

import jax
import pytest

from jaxdiff.base import accelerators

GPU, TPU, AMD = ("dev/nvidia0",), ("sys/bus/pci/devices/0000:00:05.0/",), ("dev/kfd",)
UNKNOWN = "Unknown backend cuda. Available backends are ['cpu']"
IN_USE = "Backend 'tpu' failed to initialize: ABORTED: The TPU is already in use by process with pid 7."


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with these files, these packages installed, and this answer of JAX to whoever asks for the device."""

    def made(files, installed, answer, platforms=None):
        for file in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.endswith("/"):
                path.mkdir()
                (path / "vendor").write_text("0x1ae0\n")
                (path / "device").write_text("0x0063\n")
            else:
                path.touch()

        def version(name):
            if name in installed:
                return installed[name]
            raise importlib.metadata.PackageNotFoundError(name)

        def devices(platform):
            raise RuntimeError(answer)

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(jax, "devices", devices)
        monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
        jax.config.update("jax_platforms", platforms)
        return tmp_path

    before = jax.config.jax_platforms
    yield made
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("files", "installed", "answer", "said"),
    [
        (GPU, {}, UNKNOWN, r"an NVIDIA GPU: JAX has nothing for it \(jax-cuda12-plugin is not installed\); pip .*"),
        (GPU, {"jax-cuda12-plugin": "0.5.0"}, UNKNOWN, r".*jax-cuda12-plugin 0.5.0 does not go with JAX [\d.]+; .*"),
        (GPU, {"jax-cuda13-plugin": "0.5.0"}, "no driver.\nat all", r'.*: no driver; pip install "jax\[cuda13\]==.*'),
        (TPU, {}, "Unknown backend tpu.", r'a TPU: JAX has .*; pip install "jax\[tpu\]==[\d.]+", and .* restart.*'),
        (TPU, {"libtpu": "0.1"}, IN_USE, r"a TPU: .* already in use by process with pid 7; end that process; .*"),
        (AMD, {}, "Unknown backend rocm.", r"an AMD GPU: JAX has nothing for it.*"),
    ],
)  # fmt: skip
def test_an_accelerator_that_is_not_used_is_named_with_a_cure(files, installed, answer, said, machine, capsys):
    accelerators.check_used(machine(files, installed, answer))
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert re.fullmatch(f"warning: computing on the CPU, though this machine has {said}", written.strip()), written


@pytest.mark.parametrize(("files", "platforms"), [((), None), (GPU, "cpu"), (("dev/nvidia-caps",), None)])
def test_nothing_is_said_of_a_cpu_alone_or_asked_for(files, platforms, machine, capsys):
    accelerators.check_used(machine(files, {}, UNKNOWN, platforms))
    assert capsys.readouterr().err == ""


def test_the_network_card_of_a_cloud_is_no_tpu(tmp_path):
    card = tmp_path / "sys/bus/pci/devices/0000:00:04.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x1ae0\n")
    (card / "device").write_text("0x0042\n")
    assert accelerators.present(tmp_path) is None


@pytest.mark.parametrize(("files", "cure"), [(TPU, 'pip install "jax[tpu]'), ((), "unset it, and")])
def test_a_platform_that_cannot_be_had_is_refused_in_one_line(files, cure, machine, monkeypatch):
    root = machine(files, {}, "", "tpu")

    def fails():
        raise RuntimeError("Unable to initialize backend 'tpu': no device found.\nat all")

    monkeypatch.setattr(jax, "default_backend", fails)
    with pytest.raises(ValueError, match=r"JAX_PLATFORMS=tpu cannot be had here: .* no device found") as refused:
        accelerators.check_used(root)
    assert cure in str(refused.value)
    assert "\n" not in str(refused.value)
