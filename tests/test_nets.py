"""Networks: published sizes, one image and a batch, what they embed, precision, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.solver_order import double_precision
from jaxdiff.nets import (
    MLP,
    Autoencoder,
    Bytes,
    DiT,
    EncoderUNet,
    GaussianFourier,
    Positional,
    Prompted,
    SelfConditioned,
    SmallUNet,
    Text,
    TextEncoder,
    UNet,
    Words,
    autoencoder,
    dit,
    layers,
    unet,
)

READY = {
    f"{module.__name__.split('.')[-1]}.{name}": value
    for module in (unet, dit, autoencoder)
    for name, value in vars(module).items()
    if isinstance(value, layers.Net)
}
WORDS = Words.of(["a red shoe", "a blue boot"], length=6)
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1}
PROMPTS = jnp.stack([jnp.asarray(WORDS(text)) for text in ("a red shoe", "", "a blue boot", "a blue shoe")])
LABELS = jnp.array([0, 1, 2, 10])
NETS = {  # each with the condition of four images
    "mlp": (MLP((64, 64), classes=10), LABELS),
    "small unet": (SmallUNet((8, 16, 16), classes=10), LABELS),
    "unet": (UNet(**SMALL), None),
    "unet, labels": (UNet(**SMALL, attention=(), middle_attention=False, classes=10, scale_shift=True), LABELS),
    "unet, in blocks": (unet.NCSNPP.clone(**SMALL, noise_width=32), None),
    "unet, patches": (UNet(**SMALL, patch=2, classes=10), LABELS),
    "unet, text": (UNet(**SMALL, text=True), Text(jax.random.normal(jax.random.key(7), (4, 5, 24)))),
    "prompted": (Prompted(UNet(**SMALL, classes=10, text=True), TextEncoder(WORDS.count, 16, 1)), (LABELS, PROMPTS)),
    "self-conditioned": (SelfConditioned(UNet(**SMALL, out_channels=1)), None),
    "dit": (DiT(32, 2, 2, classes=10), LABELS),
    "dit, embedded in each block": (DiT(32, 2, 2, patch=4, own_embedding=True), None),
    "classifier": (EncoderUNet(**SMALL, attention=()), None),
}
EACH = pytest.mark.parametrize("name", NETS)


def shaped(net, *inputs):
    return jax.eval_shape(net.init, jax.random.key(0), *inputs)


def started(net, *inputs):
    """Variables of a network, no layer of which is zero: numpy needs no compilation."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        deviation = 1 / np.sqrt(fan_in) if len(leaf.shape) > 1 else 0.1
        mean = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
        return jnp.asarray(mean + deviation * random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shaped(net, *inputs))


def at_work(name):
    """A network, its variables, and four images, c_noise, and conditions."""
    net, condition = NETS[name]
    x = jax.random.normal(jax.random.key(0), (4, 12, 8, 1))
    inputs = (x, jnp.array([0.0, 1.0, 10.0, 30.0]), *(() if condition is None else (condition,)))
    return net, started(net, *inputs), inputs


def parameters(net, *inputs):
    return sum(leaf.size for leaf in jax.tree.leaves(shaped(net, *inputs)))


# --- sizes ----------------------------------------------------------------------------------------------------------


def square(side, channels=3):
    return jnp.zeros((side, side, channels))


@pytest.mark.parametrize(
    ("net", "inputs", "published", "within"),
    [
        (unet.DDPM_CIFAR10, (square(32), 0.0), 35_746_307, 0),
        (unet.DDPMPP, (square(32), 0.0), 55.7e6, 0.05e6),  # "56M" in EDM's table
        (unet.NCSNPP, (square(32), 0.0), 56e6, 0.5e6),
        (unet.ADM_64, (square(64), 0.0, 0), 296e6, 0.5e6),
        (unet.ADM_128, (square(128), 0.0, 0), 422e6, 0.5e6),
        (autoencoder.SD_VAE, (square(64),), 83_653_863, 0),
    ],
    ids=["ddpm", "ddpm++", "ncsn++", "adm 64", "adm 128", "sd vae"],
)
def test_parameters_are_as_published(net, inputs, published, within):
    assert abs(parameters(net, *inputs) - published) <= within


@pytest.mark.parametrize(
    ("size", "patch", "published"),
    [
        ("S", 2, 33),
        ("B", 2, 130),
        ("L", 2, 458),
        ("XL", 2, 675.129632),
        ("S", 4, 33),
        ("B", 4, 131),
        ("L", 8, 459),
        ("XL", 4, 675),
        ("XL", 8, 676),
    ],
)
def test_transformers_are_as_published(size, patch, published):
    net = getattr(dit, f"DIT_{size}").clone(patch=patch, classes=1000, out_channels=8)
    places = (32 // patch) ** 2 * net.width  # a table that is never trained, but was counted
    millions = (parameters(net, square(32, 4), 0.0, 0) + places) / 1e6
    assert abs(millions - published) <= (0 if published % 1 else 0.55)


def test_digits_take_one_to_two_million():
    assert 1e6 < parameters(unet.DIGITS, square(28, 1), 0.0, 0) < 2e6


@pytest.mark.parametrize("name", READY | NETS)
def test_it_prints_as_the_call_that_makes_it(name):
    net = READY[name] if name in READY else NETS[name][0]
    names = {c.__name__: c for c in (*{type(v) for v in READY.values()}, *{type(n) for n, _ in NETS.values()})}
    names |= {c.__name__: c for c in (Positional, GaussianFourier, TextEncoder)}
    assert eval(repr(net), names) == net
    assert hash(net) == hash(eval(repr(net), names))
    assert "\n" not in repr(net)


# --- one image and a batch ------------------------------------------------------------------------------------------


@EACH
def test_one_image_under_vmap_is_the_batch_bit_for_bit(name):
    net, variables, inputs = at_work(name)
    ways = (net.apply, jax.vmap(net.apply, (None, *(0 for _ in inputs))))
    batched, mapped = (jax.jit(way).lower(variables, *inputs).compile() for way in ways)
    flops = [program.cost_analysis()["flops"] for program in (batched, mapped)]
    assert max(flops) <= 1.01 * min(flops)
    batch = batched(variables, *inputs)
    np.testing.assert_array_equal(batch, mapped(variables, *inputs))
    assert batch.shape == ((4, 10) if name == "classifier" else inputs[0].shape)
    assert np.std(batch) > 0.01
    one = jax.jit(net.apply)(variables, *jax.tree.map(lambda a: a[2], inputs))
    np.testing.assert_allclose(one, batch[2], atol=1e-4 * float(jnp.abs(batch).max()))
    if name in ("unet, text", "dit"):  # any leading axes
        more = jax.tree.map(lambda a: a.reshape(2, 2, *a.shape[1:]), inputs)
        np.testing.assert_allclose(jax.jit(net.apply)(variables, *more).reshape(batch.shape), batch, atol=1e-5)


@EACH
def test_each_input_changes_the_answer(name):
    """Noise, label and text, one at a time, to the same image."""
    net, variables, (x, *inputs) = at_work(name)
    x, apply = jnp.broadcast_to(x[:1], x.shape), jax.jit(net.apply)
    parts, tree = jax.tree.flatten(tuple(inputs))
    for varied in range(len(parts)):
        same = [part if i == varied else jnp.broadcast_to(part[:1], part.shape) for i, part in enumerate(parts)]
        answers = apply(variables, x, *jax.tree.unflatten(tree, same))
        assert all(float(jnp.abs(answers[i] - answers[0]).max()) > 1e-3 for i in (1, 2, 3))


def test_the_order_of_words_and_the_pooled_vector_count():
    encoder = TextEncoder(WORDS.count, 16, 1)
    tokens = jnp.stack([jnp.asarray(WORDS(text)) for text in ("red blue", "blue red")])
    text = encoder.apply(started(encoder, tokens), tokens)
    assert float(jnp.abs(text.pooled[0] - text.pooled[1]).max()) > 1e-3
    net, x = UNet(**SMALL, text=True), jnp.ones((2, 8, 8, 1))
    alike = text.replace(sequence=jnp.broadcast_to(text.sequence[:1], text.sequence.shape))
    answers = jax.jit(net.apply)(started(net, x, 0.0, alike), x, 0.0, alike)
    assert float(jnp.abs(answers[0] - answers[1]).max()) > 1e-3


LABELLED = (MLP((8,), classes=10), SmallUNet((8,), classes=10), UNet(**SMALL, classes=10), DiT(32, 1, 2, classes=10))


@pytest.mark.parametrize("net", LABELLED, ids=lambda net: type(net).__name__)
def test_labels_and_the_one_for_none_have_their_vectors(net):
    x = jnp.zeros((8, 8, 1))
    variables = started(net, x, 0.0, 0)
    assert variables["params"]["embedding"]["label"]["embedding"].shape[0] == 11
    answers = jax.jit(jax.vmap(lambda label: net.apply(variables, x, 0.0, label)))(jnp.arange(-1, 12))
    assert bool(jnp.isfinite(answers[1:12]).all())
    assert bool(jnp.isnan(answers[jnp.array([0, 12])]).all())  # too late to refuse


@pytest.mark.parametrize("patch", [2, 3])
def test_patches_are_images_of_more_channels(patch):
    rows, columns, channels = 4, 6, 2
    x = jax.random.normal(jax.random.key(0), (rows * patch, columns * patch, channels))
    order = list(itertools.product(range(patch), range(patch), range(channels)))  # of the channels
    patches = jnp.stack([x[i::patch, j::patch, c] for i, j, c in order], -1)
    nets = UNet(**SMALL, out_channels=channels), EncoderUNet(**SMALL, attention=())
    for net, plain in zip(nets, (nets[0].clone(out_channels=len(order)), nets[1]), strict=True):
        patched = net.clone(patch=patch)
        variables = started(plain, patches, 0.3)
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shaped(patched, x, 0.3))
        expected, answer = jax.jit(plain.apply)(variables, patches, 0.3), jax.jit(patched.apply)(variables, x, 0.3)
        if net is nets[0]:
            assert answer.shape == x.shape
            answer = jnp.stack([answer[i::patch, j::patch, c] for i, j, c in order], -1)
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [28, 32, 64, 96, 128])
def test_the_classifier_takes_images_of_any_size(side):
    net = EncoderUNet(channels=16)
    assert jax.eval_shape(net.apply, shaped(net, square(side), 0.0), square(side), 0.0).shape == (10,)


def test_the_noise_level_can_be_left_out():
    net = UNet(**SMALL, noise_embedding=None)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = started(net, x, 0.0)
    assert "noise_0" not in str(jax.tree.structure(variables))
    apply = jax.jit(net.apply)
    np.testing.assert_array_equal(apply(variables, x, 0.0), apply(variables, x, 5.0))


def test_no_words_is_no_text():
    """Tokens after the end are not seen: the empty prompt is BEGIN alone, whatever its length."""
    encoder = TextEncoder(WORDS.count, 16, 1)
    variables = started(encoder, PROMPTS[0])
    text = encoder.apply(variables, PROMPTS)
    np.testing.assert_array_equal(text.mask.sum(-1), [4, 1, 4, 4])
    other = PROMPTS.at[1, 3].set(0)
    np.testing.assert_array_equal(encoder.apply(variables, other).pooled, text.pooled)
    changed = Text(text.sequence + 100.0 * ~text.mask[..., None], text.mask, text.pooled)
    net = UNet(**SMALL, text=True)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    variables = started(net, x, 0.0, text)
    apply = jax.jit(net.apply)
    np.testing.assert_allclose(apply(variables, x, 0.0, changed), apply(variables, x, 0.0, text), atol=1e-5)


def test_tokens():
    np.testing.assert_array_equal(Bytes(6)("né"), [1, 3 + ord("n"), 3 + 0xC3, 3 + 0xA9, 0, 0])
    assert WORDS.vocabulary == ("a", "blue", "boot", "red", "shoe")
    np.testing.assert_array_equal(WORDS("A RED, red hat!"), [1, 3, 6, 6, 2, 0])
    with pytest.raises(ValueError, match="at most 5 tokens is needed, this has 6: 'a a a a a a'"):
        WORDS("a a a a a a")
    with pytest.raises(ValueError, match="each word once"):
        Words(("a", "a"))


# --- training and precision -----------------------------------------------------------------------------------------


@EACH
def test_it_overfits_eight_images(name):
    """The loss of the noise in eight noisy images, or of eight labels, falls a hundredfold."""
    net, condition = NETS[name]
    twice = () if condition is None else (jax.tree.map(lambda a: jnp.concatenate([a, a]), condition),)
    x, noise = jax.random.normal(jax.random.key(3), (2, 8, 4, 4, 1))
    c_noise = jnp.linspace(0.0, 30.0, 8)
    target = jax.nn.one_hot(jnp.arange(8), 10) if isinstance(net, EncoderUNet) else noise

    @jax.jit
    def loss(variables):
        return jnp.mean((net.apply(variables, x + noise, c_noise, *twice) - target) ** 2)

    variables = started(net, x, c_noise, *twice)
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, 120))

    def step(_, state):
        variables, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(variables), moments)
        return optax.apply_updates(variables, updates), moments

    trained, _ = jax.jit(lambda state: jax.lax.fori_loop(0, 120, step, state))((variables, optimizer.init(variables)))
    assert loss(trained) < loss(variables) / 100


@EACH
def test_half_precision_is_close_and_its_gradients_finite_at_the_extremes_of_noise(name):
    net, variables, (x, _, *given) = at_work(name)
    if isinstance(net, Prompted | SelfConditioned):
        half = net.clone(network=net.network.clone(dtype="bfloat16"))
    else:
        half = net.clone(dtype="bfloat16")
    x = x * jnp.array([1e-4, 1.0, 100.0, 1e4])[:, None, None, None]
    c_noise = jnp.array([-20.0, 0.0, 20.0, 1000.0])

    def loss(variables, net):
        answer = net.apply(variables, x, c_noise, *given)
        return jnp.mean(answer**2), answer

    gradients, answer = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(variables, half)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    exact = jax.jit(net.apply)(variables, x, c_noise, *given)
    assert answer.dtype == exact.dtype
    assert float(jnp.abs(answer - exact).max()) < 0.1 * float(jnp.abs(exact).max())
    assert bool(jnp.any(answer != exact))


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_computing_blocks_again_changes_memory_alone(name):
    net, variables, inputs = at_work(name)

    def gradient(net):
        return jax.jit(jax.grad(lambda v: jnp.sum(net.apply(v, *inputs) ** 2))).lower(variables).compile()

    kept, again = gradient(net), gradient(net.clone(remat=True))
    one, other = kept(variables), again(variables)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), one, other)
    assert again.cost_analysis()["flops"] > 1.1 * kept.cost_analysis()["flops"]


def test_dropout_wants_a_key():
    net = UNet(**SMALL, dropout=0.5)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = started(net, x, 0.0)
    apply = jax.jit(lambda *keys: net.apply(variables, x, 0.0, rngs=dict(zip(["dropout"], keys, strict=False))))
    one, other = (apply(jax.random.key(i)) for i in (2, 3))
    assert bool(jnp.any(one != other))
    np.testing.assert_allclose(apply(), jax.jit(net.clone(dropout=0.0).apply)(variables, x, 0.0), atol=1e-5)


def test_self_conditioning_hides_the_first_answer_from_half_in_training():
    net, variables, (x, c_noise) = at_work("self-conditioned")
    blind = jax.jit(net.network.apply)(
        {"params": variables["params"]["network"]}, jnp.concatenate([x, 0 * x], -1), c_noise
    )
    apply = jax.jit(lambda key: net.apply(variables, x, c_noise, rngs={"dropout": key}))
    seen = [apply(jax.random.key(i)) for i in range(8)]
    share = np.mean([np.abs(s - blind).max((1, 2, 3)) < 1e-4 for s in seen])
    assert 0.25 < share < 0.75
    # outside training the derivative goes through the first answer too
    f = jax.jit(lambda s: jnp.sum(net.apply(variables, s * x, c_noise)))
    slope = (f(1.0 + 1e-2) - f(1.0 - 1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(f)(1.0), slope, rtol=2e-2)
    with pytest.raises(ValueError, match="needs a network with out_channels=1"):
        SelfConditioned(UNet(**SMALL)).init(jax.random.key(0), x, c_noise)


def test_double_precision_is_double():
    with double_precision():
        for net in (UNet(**SMALL, dtype="float64"), DiT(32, 1, 2, dtype="float64"), MLP((8,), dtype="float64")):
            x = jnp.ones((8, 8, 1), jnp.float64)
            variables = shaped(net, x, 0.0)
            assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
            assert jax.eval_shape(net.apply, variables, x, 0.0).dtype == jnp.float64


def test_it_starts_as_nothing():
    """Zero where a block or the network ends, Glorot's deviation elsewhere, norms at one."""
    net = UNet(channels=32, multipliers=(1,), blocks=1, attention=(0,))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x, 0.0)
    assert not jnp.any(jax.jit(net.apply)(variables, x, 0.0))
    params = variables["params"]
    for block in ("down_0_0", "middle_0", "up_0_1"):
        assert not jnp.any(params[block]["conv_1"]["kernel"])
    assert not jnp.any(params["middle_attention"]["out"]["kernel"])
    kernel = params["middle_0"]["conv_0"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 32 + 9 * 32)), rtol=0.05)
    np.testing.assert_array_equal(params["last_norm"]["scale"], 1)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_group_norm_is_what_it_says():
    x = 3 + 2 * np.random.default_rng(0).standard_normal((2, 5, 4, 12))
    net = layers.GroupNorm(groups=3)
    variables = net.init(jax.random.key(0), jnp.asarray(x, jnp.float32))
    grouped = x.reshape(2, 5, 4, 3, 4)
    mean, variance = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
    exact = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    scale, shift = np.random.default_rng(1).standard_normal((2, 2, 12))
    found = net.apply(variables, *(jnp.asarray(a, jnp.float32) for a in (x, scale, shift)))
    np.testing.assert_allclose(found, exact * (1 + scale[:, None, None]) + shift[:, None, None], atol=1e-5)
    far = x + 1000  # where a mean of squares would have cancelled
    np.testing.assert_allclose(net.apply(variables, jnp.asarray(far, jnp.float32)), exact, atol=1e-3)
    assert [layers.default_groups(c) for c in (1, 3, 16, 32, 36, 96, 128, 144)] == [1, 1, 4, 8, 9, 24, 32, 24]


def test_attention_is_what_it_says():
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 8))
    mask = np.array([[True, True, False, True, False], [False, True, True, True, True]])
    logits = np.einsum("btnc,bsnc->bnts", q.reshape(2, 5, 2, 4), k.reshape(2, 5, 2, 4)) / 2
    weights = np.exp(logits) * mask[:, None, None]
    weights /= weights.sum(-1, keepdims=True)
    exact = np.einsum("bnts,bsnc->btnc", weights, v.reshape(2, 5, 2, 4)).reshape(2, 5, 8)
    q, k, v = (jnp.asarray(a, jnp.float32) for a in (q, k, v))
    np.testing.assert_allclose(layers.attend(q, k, v, 2, jnp.asarray(mask)), exact, atol=1e-5)
    nothing = layers.attend(q, k, v, 2, jnp.zeros((2, 5), bool))
    np.testing.assert_array_equal(nothing, 0)
    with pytest.raises(ValueError, match="heads that divide the 8 channels, got 3"):
        layers.attend(q, k, v, 3)


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0)], ids=len)
def test_doubling_is_four_times_the_adjoint_of_halving(taps):
    x, y = jax.random.normal(jax.random.key(0), (6, 4, 2)), jax.random.normal(jax.random.key(1), (12, 8, 2))
    up, down = layers.upsample(x, taps), layers.downsample(y, taps)
    np.testing.assert_allclose(jnp.vdot(up, y), 4 * jnp.vdot(x, down), rtol=1e-5)
    ones = jnp.ones((6, 4, 1))
    np.testing.assert_allclose(layers.upsample(ones, taps)[1:-1, 1:-1], 1)
    np.testing.assert_allclose(layers.downsample(ones, taps)[1:-1, 1:-1], 1)
    if len(taps) == 2:
        np.testing.assert_array_equal(up, np.repeat(np.repeat(x, 2, 0), 2, 1))


def test_embeddings_of_the_noise_level():
    c_noise = np.array([0.0, 3.0, 700.0])
    angle = c_noise[:, None] * 10000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(
        Positional()(jnp.asarray(c_noise), 8), np.hstack([np.sin(angle), np.cos(angle)]), atol=1e-4
    )
    angle = c_noise[:, None] * 100.0 ** (-np.arange(4) / 4)
    other = Positional(100.0, shift=0, sine_first=False)(jnp.asarray(c_noise), 8)
    np.testing.assert_allclose(other, np.hstack([np.cos(angle), np.sin(angle)]), atol=1e-4)
    # the frequencies are never stored: they must stay what they are, whatever the random numbers of JAX
    np.testing.assert_allclose(
        GaussianFourier(1.0)(jnp.asarray(1e-3), 2)[0], np.sin(2e-3 * np.pi * 1.764052), rtol=1e-5
    )
    waves = np.asarray(GaussianFourier(2.0)(jnp.asarray(1e-4), 4096))  # sin of 2 pi 1e-4 frequency
    assert abs((waves[:2048] / (2 * np.pi * 1e-4)).std() - 2.0) < 0.1
    with pytest.raises(ValueError, match="an even width"):
        Positional()(jnp.asarray(c_noise), 7)


# --- the autoencoder ------------------------------------------------------------------------------------------------

TINY = Autoencoder(image_channels=1, latent_channels=2, channels=8, multipliers=(1, 2), blocks=1)


def test_kl_of_a_diagonal_gaussian():
    q = autoencoder.DiagonalGaussian(jnp.array([0.0, 1.0, 0.5]), jnp.log(jnp.array([1.0, 1.0, 4.0])))
    exact = [0.0, 0.5, (0.25 + 4.0 - 1 - np.log(4.0)) / 2]
    np.testing.assert_allclose(q.kl(), exact, atol=1e-6)
    z = jax.vmap(q.sample)(jax.random.split(jax.random.key(0), 40_000))
    np.testing.assert_allclose(z.mean(0), q.mean, atol=0.05)
    np.testing.assert_allclose(z.std(0), [1, 1, 2], rtol=0.02)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("net", [TINY, TINY.clone(patch=2, multipliers=(2,))], ids=["pixels", "patches"])
def test_the_autoencoder_overfits_eight_images_and_its_codec_measures_them(net):
    from jaxdiff.core.losses import AutoencoderLoss, squared

    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 1)).repeat(2, 1).repeat(2, 2)
    variables = started(net, x)
    loss = AutoencoderLoss(squared, kl=1e-4, terms=((0.1, lambda x, y: jnp.mean(jnp.abs(x - y))),))

    def mean_loss(variables, step):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(2), step), 8)
        return jnp.mean(jax.vmap(lambda key, x: loss(net.bind(variables), key, x))(keys, x))

    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 200))

    def step(i, state):
        variables, moments = state
        updates, moments = optimizer.update(jax.grad(mean_loss)(variables, i), moments)
        return optax.apply_updates(variables, updates), moments

    trained, _ = jax.jit(lambda s: jax.lax.fori_loop(0, 200, step, s))((variables, optimizer.init(variables)))

    @jax.jit
    def error(variables):
        return jnp.mean((net.apply(variables, x) - x) ** 2)

    assert error(trained) < error(variables) / 100
    codec = autoencoder.Codec.measured(net, trained, [x[:5], x[5:]])
    draws = jax.vmap(lambda key: codec.encode(x, key))(jax.random.split(jax.random.key(3), 200))
    np.testing.assert_allclose(draws.mean((0, 1, 2, 3)), 0, atol=0.02)
    np.testing.assert_allclose(draws.std((0, 1, 2, 3)), 1, atol=0.02)
    np.testing.assert_allclose(jax.jit(codec.decode)(codec.encode(x)), jax.jit(net.apply)(trained, x), atol=1e-5)
    np.testing.assert_allclose(jax.vmap(codec.encode)(x), codec.encode(x), atol=1e-6)
    with pytest.raises(ValueError, match="at least one batch"):
        autoencoder.Codec.measured(net, trained, [])


def test_latents_of_small_images_are_as_said():
    of_an_eighth = (autoencoder.SD_VAE, 64, 3), (autoencoder.KL_128, 128, 3)
    for net, side, channels in ((autoencoder.KL_28, 28, 1), (autoencoder.KL_32, 32, 3), *of_an_eighth):
        x = square(side, channels)
        variables = jax.eval_shape(net.init, jax.random.key(0), x)
        latents = jax.eval_shape(lambda v, x, net=net: net.apply(v, x, method="encode"), variables, x)
        factor = 8 if side >= 64 else 4
        assert latents.mean.shape == (side // factor, side // factor, 8 if side == 128 else 4)
        assert jax.eval_shape(net.apply, variables, x).shape == x.shape


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shaped(UNet(), square(30), 0.0), "divisible by 8, got 30x30: 24x24 and 32x32 would do"),
        (lambda: shaped(UNet(), jnp.zeros((4, 20, 3)), 0.0), "divisible by 8, got 4x20: 8x16 and 8x24 would do"),
        (lambda: shaped(UNet(), jnp.zeros((32, 30, 3)), 0.0), "got 32x30: 32x24 and 32x32 would do"),
        (lambda: shaped(UNet(patch=3), square(28), 0.0), "divisible by 24, got 28x28: 24x24 and 48x48 would do"),
        (lambda: shaped(DiT(patch=4), square(30), 0.0), "divisible by 4"),
        (lambda: shaped(SmallUNet(), square(30), 0.0), "divisible by 4"),
        (lambda: shaped(TINY, square(7, 1)), "divisible by 2"),
        (lambda: shaped(TINY.clone(patch=3), square(8, 1)), "divisible by 6"),
        (lambda: shaped(TINY, square(8)), "images of 1 channels"),
        (lambda: shaped(UNet(**SMALL), square(8), 0.0, 3), r"takes no condition, got shapes \(\)"),
        (lambda: shaped(UNet(**SMALL, classes=10), square(8), 0.0), "takes a label, got none"),
        (lambda: shaped(UNet(**SMALL, text=True), square(8), 0.0), "takes a text, got none"),
        (lambda: shaped(UNet(**SMALL, classes=2, text=True), square(8), 0.0, 1), r"takes a condition \(label, text\)"),
        (lambda: shaped(UNet(**SMALL, classes=10), square(8), 0.0, 0.5), "integers, such as labels or tokens"),
        (lambda: shaped(UNet(**SMALL, groups=5), square(8), 0.0), "groups that divide the 8 channels, got 5"),
        (lambda: shaped(UNet(**SMALL, heads=3), square(8), 0.0), "heads that divide the 16 channels, got 3"),
        (lambda: UNet(multipliers=()), "multipliers > 0, one a level"),
        (lambda: UNet(attention=(4,)), r"attention at levels of range\(0, 4\), got \(4,\)"),
        (lambda: UNet(dropout=1.0), "0 <= dropout < 1"),
        (lambda: UNet(taps=(1.0,)), "two or four taps"),
        (lambda: UNet(classes=0), "classes > 0"),
        (lambda: EncoderUNet(classes=0), "classes > 0"),
        (lambda: DiT(width=30), "a width that 4 and the heads divide"),
        (
            lambda: shaped(UNet(**SMALL), jnp.zeros((8, 3)), 0.0),
            r"an image .*, got \(8, 3\)",
        ),
        (lambda: shaped(UNet(**SMALL, head_channels=12), square(8), 0.0), "divide the 16 channels of attention"),
        (
            lambda: shaped(UNet(**SMALL, text=True), jnp.zeros((2, 8, 8, 1)), 0.0, jnp.zeros((3, 4))),
            "one text an image",
        ),
        (lambda: shaped(UNet(**SMALL, text=True), square(8), 0.0, jnp.zeros((0, 4))), "at least one token"),
        (lambda: shaped(UNet(**SMALL, text=True), square(8), 0.0, 3), r"takes a text, got shapes \(\)"),
        (lambda: shaped(UNet(**SMALL, text=True), square(8), 0.0, (1, jnp.zeros((2, 4)))), "takes a text, got"),
        (lambda: shaped(UNet(**SMALL, classes=2), square(8), 0.0, Text(jnp.zeros((2, 4)))), "takes a label, got"),
        (lambda: shaped(UNet(**SMALL, classes=2, text=True), square(8), 0.0, (1, None)), "takes a condition"),
        (
            lambda: shaped(DiT(classes=2), jnp.zeros((4, 8, 8, 1)), 0.0, jnp.zeros((4, 1), int)),
            r"one label an image.*\(4,\)",
        ),
        (lambda: shaped(MLP(), jnp.zeros((5, 2)), 0.0), "an image"),
        (lambda: shaped(TINY, jnp.zeros((8, 1))), "an image"),
        (
            lambda: layers.Embed(3, 4).init(jax.random.key(0), jnp.array([0, -1])),
            r"integers from 0 to 2, got \[0, -1\]",
        ),
        (lambda: UNet(text=True, attention=(), middle_attention=False), "attention at some level, to see the text"),
        (lambda: UNet(groups=0), "groups > 0"),
        (lambda: UNet(patch=0), "patch > 0"),
        (lambda: UNet(heads=-1), "heads > 0"),
        (lambda: UNet(multipliers=(0.001, 1)), "multipliers > 0"),
        (lambda: UNet(down_padding=(0, 0)), "down_padding"),
        (lambda: UNet(dtype="float3"), "a dtype of auto, float32, bfloat16, float16, float64, got 'float3'"),
        (lambda: UNet(noise_embedding=Positional), r"an embedding such as Positional\(\)"),
        (lambda: UNet(epsilon=0.0), "epsilon > 0"),
        (lambda: DiT(dropout=1.5), "0 <= dropout < 1"),
        (lambda: Bytes(1), "a length from 2 to 65536"),
        (lambda: Words(["a", "b"]), "a tuple of words"),
        (lambda: MLP(()), "widths > 0"),
        (lambda: MLP(512), "widths in a tuple, got 512"),
        (lambda: UNet(attention=2), "attention in a tuple, got 2"),
        (lambda: UNet(taps=(1.0, 2.0)), "two or four taps, alike from both ends"),
        (lambda: TextEncoder(0), "count > 0"),
        (lambda: Autoencoder(multipliers=()), "multipliers > 0"),
        (lambda: Positional(shift=2), "shift 0 or 1"),
        (lambda: GaussianFourier(0.0), "scale > 0"),
    ],
)
def test_bad_values_are_refused_with_what_is_legal(call, message):
    with pytest.raises(ValueError, match=message):
        call()
