"""Exported samplers: they draw the same images where there is no jaxdiff, on any platform, in batches of any size."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import nets
from jaxdiff.base.pictures import to_uint8
from jaxdiff.core import c_noise, grids, predictions, process, samplers
from jaxdiff.models import Classification, Diffusion, Labels, Prompts
from jaxdiff.models import export as exporting
from jaxdiff.models.export import PLATFORMS, export
from jaxdiff.models.model import Classifier, Model
from jaxdiff.nets import MLP, Bytes, Prompted, TextEncoder, UNet, Words

PAGE = Path(__file__).parent.parent / "docs" / "export.md"
SHAPE = (8, 8, 1)
LABELS = Labels(10, drop=0.1)
MANNER = {
    "process": process.VP(),
    "prediction": predictions.data,
    "c_noise": c_noise.time,
    "sampler": samplers.DPMpp2M(eta=0.5),
    "grid": grids.LogSNR(),
    "steps": 3,
}
SMALL = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "groups": 4}


def random(init, seed=0):
    """Parameters as after some training: nothing is zero."""
    generator = np.random.default_rng(seed)

    def draw(leaf):
        deviation = 0.3 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        return generator.normal(0, deviation, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, jax.eval_shape(init))


def a_model(network, condition=None, shape=SHAPE, **manner):
    system = Diffusion(network, condition=condition, **MANNER | manner)
    return Model(system, random(lambda: system.start(jax.random.key(0), shape)), shape)


def of_prompts(tokens):
    network = Prompted(UNet(**SMALL, text=True), TextEncoder(tokens.count, width=16, depth=1))
    return a_model(network, Prompts(tokens, drop=0.1, shown=('the "ö"', "a cat, a dog", "")), guidance_scale=8.0)


def of_latents():
    autoencoder = nets.Autoencoder(image_channels=3, channels=8, multipliers=(1, 2), blocks=1, groups=4)
    variables = random(lambda: autoencoder.init(jax.random.key(0), jnp.zeros((8, 8, 3))), seed=1)
    codec = nets.Codec(autoencoder, variables, jnp.full(4, 0.1), jnp.full(4, 1.5))
    return replace(a_model(MLP((16,), classes=10), LABELS, (4, 4, 4), codec="a run"), codec=codec)


MODELS = {
    "digits": lambda: a_model(MLP((64,), classes=10), LABELS, guidance_scale=2.0),
    "nothing": lambda: a_model(MLP((16,))),
    "words": lambda: of_prompts(Words.of(["a cat and a dog", "ö"], length=6)),
    "bytes": lambda: of_prompts(Bytes(14)),
    "latent": of_latents,
}
DRAWN = [("digits", 3), ("digits", 5), ("nothing", 3), ("words", 3), ("bytes", 3), ("latent", 3)]
ALONE = """
import sys
sys.modules["jaxdiff"] = None  # now it cannot be imported
"""


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, models):
    """Each model exported, and what their programs draw in a process that knows no jaxdiff."""
    folder, elsewhere = tmp_path_factory.mktemp("exported"), tmp_path_factory.mktemp("elsewhere")
    for name, model in models.items():
        (folder / f"{name}.txt").write_text(export(model, folder / f"{name}.jaxdiff"))
    programs = [ALONE]
    for name, count in DRAWN:
        program = (folder / f"{name}.txt").read_text()
        assert "arange(10," in program
        assert '"images.npy"' in program
        program = program.replace("arange(10,", f"arange({count},")
        programs.append(program.replace('"images.npy"', repr(str(folder / f"{name}{count}.npy"))))
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-I", "-c", "\n".join(programs)], cwd=elsewhere, env=environment, check=True)
    return folder


@pytest.mark.parametrize(("name", "count"), DRAWN)
def test_the_program_draws_the_same_images_without_jaxdiff(folder, models, name, count):
    drawn, own = np.load(folder / f"{name}{count}.npy"), to_uint8(models[name].sample(count))
    assert drawn.dtype == np.uint8
    assert_same(drawn, own)


def assert_same(drawn, own, atol=1):
    assert drawn.shape == own.shape
    np.testing.assert_allclose(drawn.astype(int), own.astype(int), atol=atol)
    assert own.std() > 5
    assert np.abs(own[1:].astype(int) - own[:-1]).max((1, 2, 3)).min() > 10  # no two are alike


NUMBERS = [4, 2, 1_000_000]


def drawn_from(path, *labels):
    sampler = jax.export.deserialize(bytearray(path.read_bytes()))
    condition = [np.array(labels, np.int32)] if labels else []
    return np.asarray(sampler.call(np.uint32(7), np.array(NUMBERS, np.uint32), *condition))


def test_seeds_numbers_and_labels_are_given(folder, models):
    drawn = drawn_from(folder / "digits.jaxdiff", 6, 1, 6)
    assert_same(drawn, to_uint8(models["digits"].sample(NUMBERS, labels=[9, 6, 1], seed=7)))


def test_it_is_for_every_platform_and_any_batch(folder):
    exported = jax.export.deserialize(bytearray((folder / "digits.jaxdiff").read_bytes()))
    assert exported.platforms == PLATFORMS == ("cpu", "cuda", "rocm", "tpu")
    seed, numbers, labels = exported.in_avals
    assert (seed.shape, seed.dtype) == ((), np.uint32)
    assert (len(numbers.shape), numbers.dtype) == (1, np.uint32)
    assert (labels.shape, labels.dtype) == (numbers.shape, np.int32)
    (images,) = exported.out_avals
    assert images.shape == (*numbers.shape, *SHAPE)
    assert images.dtype == np.uint8


def test_the_weights_are_in_it_once(folder, models):
    content = (folder / "latent.jaxdiff").read_bytes()
    model = models["latent"]
    weights = {"network": model.params, **model.codec.variables["params"]}
    counts = {
        part: {content.count(np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)}
        for part, tree in weights.items()
    }
    assert counts == {"network": {1}, "decoder": {1}, "encoder": {0}}


@pytest.fixture(autouse=True, scope="module")
def _lines_of_python_are_remembered():
    """As usual, if not in other tests."""
    jax.config.update("jax_traceback_in_locations_limit", 10)
    yield
    jax.config.update("jax_traceback_in_locations_limit", 0)


def test_it_names_no_file_of_this_machine_and_is_the_same_each_time(folder, models, tmp_path):
    before = jax.config.jax_traceback_in_locations_limit
    export(models["digits"], tmp_path / "again")
    assert jax.config.jax_traceback_in_locations_limit == before != 0
    content = (folder / "digits.jaxdiff").read_bytes()
    assert content == (tmp_path / "again").read_bytes()
    assert b".py" not in content


def test_a_unet_in_half_precision_is_exported_on_a_gpu_too(tmp_path, monkeypatch):
    """There attention is cuDNN's, which not every machine has: the file does without."""
    model = a_model(UNet(**SMALL, classes=10, dtype="bfloat16"), LABELS)
    own = to_uint8(model.sample(NUMBERS, labels=[9, 6, 1], seed=7))
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(jax, "default_backend", lambda: "gpu")
        export(model, tmp_path / "unet")
    assert_same(drawn_from(tmp_path / "unet", 6, 1, 6), own, atol=16)  # rounding


def a_classifier():
    network = nets.EncoderUNet(channels=4, multipliers=(1,), blocks=1, attention=())
    system = Classification(network, process=process.VP(), c_noise=c_noise.time)
    return Classifier(system, random(lambda: system.start(jax.random.key(0), SHAPE)), SHAPE)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": samplers.AdaptiveODE(1e-3, 1e-3), "steps": 1, "grid": grids.Uniform(first=1.0)},
        {"sampler": samplers.UniPC(3), "steps": 4, "guidance_scale": 3.0, "interval": (0.1, 3.0), "rescale": 0.5},
        {"sampler": samplers.EDM(churn=4.0), "threshold": 0.9, "grid": grids.Karras()},
        {"sampler": samplers.DDIM(), "guidance_scale": 4.0, "classifier": a_classifier()},
        {"denoiser": lambda x, t, label: 0.1 * label * jnp.tanh(x)},
    ],
    ids=lambda options: "-".join(options),
)
def test_it_is_walked_as_the_model_is(models, tmp_path, options):
    model = models["nothing" if "classifier" in options else "digits"]
    export(model, tmp_path / "it", **options)
    drawn = drawn_from(tmp_path / "it", 6, 1, 6)
    assert_same(drawn, to_uint8(model.sample(NUMBERS, labels=[9, 6, 1], seed=7, **options)))
    plain = to_uint8(models["digits"].sample(NUMBERS, labels=[9, 6, 1], seed=7))
    assert np.abs(drawn.astype(int) - plain).max() > 5  # the options matter


def test_what_is_not_a_number_is_black(models, tmp_path):
    def broken(x, t, label):
        return jnp.where(label == 1, jnp.nan, 1.0) + 0 * x

    export(models["digits"], tmp_path / "it", denoiser=broken)
    drawn = drawn_from(tmp_path / "it", 0, 1, 2)
    assert [set(image.ravel().tolist()) for image in drawn] == [{255}, {0}, {255}]


def test_what_is_wrong_is_refused(models, tmp_path, monkeypatch):
    model = models["nothing"]
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ValueError, match="there exists already: name another, or remove it"):
        export(model, tmp_path / "there")
    with pytest.raises(ValueError, match=r"it cannot be written .*: name another"):
        export(model, tmp_path / "there" / "it")
    for platforms in (["cpu", "gpu"], (), "cpu"):
        with pytest.raises(ValueError, match="platforms of cpu, cuda, rocm, tpu, got"):
            export(model, tmp_path / "it", platforms=platforms)
    with pytest.raises(ValueError, match=r"guidance_scale=2.0 needs a conditional model"):
        export(model, tmp_path / "it", guidance_scale=2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "mine"


def test_what_is_too_large_is_refused_before_the_work_if_it_can_be(models, tmp_path, monkeypatch):
    model = models["nothing"]
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    monkeypatch.setattr(exporting, "MOST", weights + 1000)
    with pytest.raises(ValueError, match=r"less than .* GB"):
        export(model, tmp_path / "it")
    monkeypatch.setattr(exporting, "MOST", weights - 1000)
    monkeypatch.delattr(jax.export, "export")
    with pytest.raises(ValueError, match=r"less than .* GB"):
        export(model, tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_refused_at_once(models, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may do anything
    with pytest.raises(ValueError, match=r"it cannot be written \(Permission denied\)"):
        export(models["nothing"], tmp_path / "it")


def test_a_full_disk_leaves_nothing_behind(models, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match=r"it cannot be written \(No space left on device\): name another"):
        export(models["nothing"], tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


def test_one_platform_may_do(models, tmp_path):
    export(models["nothing"], tmp_path / "new" / "it", platforms=["cuda"])
    assert jax.export.deserialize(bytearray((tmp_path / "new" / "it").read_bytes())).platforms == ("cuda",)


def test_the_docs_show_the_program(folder, models):
    program = (folder / "digits.txt").read_text().replace(f"{folder}/digits", "mnist").replace("8, 8, 1", "28, 28, 1")
    shown = re.sub(r"^ {4}", "", PAGE.read_text(), flags=re.MULTILINE)
    assert program in shown
