"""Checkpoints: what is kept, what is moved to other devices, and that no damage goes unseen."""

import errno
import os
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxdiff.base import files
from jaxdiff.base.files import free_bytes, unused
from jaxdiff.training.checkpoint import Checkpoints, DamagedError, fingerprint
from jaxdiff.training.placing import Trainer


def state_of(seed):
    """Every kind of array there is in a training state."""
    key = jax.random.key(seed)
    params = {"kernel": jax.random.normal(key, (128, 128)), "half": jnp.full((3,), seed, jnp.bfloat16)}
    return {
        "params": params,
        "opt_state": optax.adam(1e-3).init(params),
        "key": jax.random.fold_in(key, 1),
        "flags": jnp.array([True, False]),
        "bytes": jnp.arange(5, dtype=jnp.uint8) + seed,
        "step": jnp.int32(seed),
    }


def like(state, placing="jit"):
    shardings = Trainer(placing).shardings(state)
    return jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, shardings)


def same(state, other):
    def bits(leaf):
        return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
    return all(bits(a).dtype == bits(b).dtype and np.array_equal(bits(a), bits(b)) for a, b in pairs)


def saved(folder, steps, **options):
    checkpoints = Checkpoints(folder, **{"keep": 10, **options})
    for step in steps:
        checkpoints.save(step, state_of(step))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("checkpoints"), (1, 2))


@pytest.fixture
def two(pristine, tmp_path):
    """A copy of checkpoints of steps 1 and 2."""
    return Path(shutil.copytree(pristine, tmp_path / "two"))


def newest(folder):
    """The step and state that a run would go on from, and what it would say."""
    said, checkpoints = [], Checkpoints(folder, keep=10)
    found = checkpoints.restore_newest(like(state_of(0)), said.append)
    checkpoints.close()
    return found, said


def test_what_is_saved_comes_back_bit_for_bit(two):
    (step, state), said = newest(two)
    assert (step, said) == (2, [])
    assert same(state, state_of(2))
    checkpoints = Checkpoints(two)
    assert same(checkpoints.restore(like(state_of(0)), 1), state_of(1))
    with pytest.raises(ValueError, match="no checkpoint of step 7: it has 1, 2"):
        checkpoints.restore(like(state_of(0)), 7)
    checkpoints.close()


def test_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", keep=3)
    assert checkpoints.restore_newest(like(state_of(0)), print) is None
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        checkpoints.restore(like(state_of(0)))
    checkpoints.close()


def test_the_last_few_and_every_so_many_are_kept(tmp_path):
    folder = saved(tmp_path, range(1, 9), keep=2, keep_every=3)
    assert Checkpoints(folder).steps == [3, 6, 7, 8]
    assert sorted(path.name for path in folder.iterdir()) == ["3", "6", "7", "8"]


def test_what_a_killed_process_left_is_cleared_away_by_the_next_and_no_one_else(two):
    left = two / "3.orbax-checkpoint-tmp"
    shutil.copytree(two / "2", left)
    reader = Checkpoints(two)
    time.sleep(0.3)  # it is done beside
    reader.close()
    assert left.exists()
    assert newest(two)[0][0] == 2
    end = time.monotonic() + 20
    while left.exists():
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("before", "after"), [("sharded", "jit"), ("jit", "sharded"), ("pmap", "jit"), ("jit", "pmap")]
)
def test_a_state_moves_to_other_devices(tmp_path, before, after):
    state = jax.device_put(state_of(5), Trainer(before).shardings(state_of(5)))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(5, state)
    moved = checkpoints.restore(like(state, after))
    checkpoints.close()
    assert same(moved, state_of(5))
    split = moved["params"]["kernel"].addressable_shards
    assert {shard.data.shape for shard in split} == {(16, 128) if after == "sharded" else (128, 128)}


# --- damage ---------------------------------------------------------------------------------------------------------


def files_of(folder, step):
    return [path for path in sorted((folder / str(step)).rglob("*")) if path.is_file()]


def flipped(path, rng):
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content), size=1 + len(content) // 1000):
        content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def truncated(path, rng):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path, rng):
    path.write_bytes(b"")


def deleted(path, rng):
    path.unlink()


@pytest.mark.parametrize("damage", [flipped, truncated, emptied, deleted])
def test_no_damage_goes_unseen(two, damage):
    """A damaged file either does not matter, or the checkpoint before is taken and a line says so."""
    rng, whole, fell_back = np.random.default_rng(0), two, 0
    for number, path in enumerate(files_of(whole, 2)):
        folder = Path(shutil.copytree(whole, whole.with_name(f"copy_{number}")))
        damage(folder / path.relative_to(whole), rng)
        (step, state), said = newest(folder)
        assert same(state, state_of(step)), path
        if step == 1:
            fell_back += 1
            assert len(said) == 1
            assert "it is now damaged_2, and the run goes on from step 1" in said[0]
            assert (folder / "damaged_2").is_dir()
            assert Checkpoints(folder).steps == [1]
        else:
            assert said == []
    assert fell_back >= 3


def test_one_number_changed_by_hand_is_noticed(two, monkeypatch):
    def changed(state):
        return {**state, "opt_state": jax.tree.map(lambda leaf: leaf, state["opt_state"]), "step": state["step"] + 1}

    checkpoints = Checkpoints(two, keep=10)
    monkeypatch.setattr("jaxdiff.training.checkpoint.fingerprint", lambda state: fingerprint(changed(state)))
    checkpoints.save(3, state_of(3))
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="3 is not what was written: a file has changed"):
        checkpoints.restore(like(state_of(0)), 3)
    checkpoints.close()


def test_every_bit_counts_in_a_fingerprint():
    rng = np.random.default_rng(1)
    tree = {"a": rng.normal(size=40).astype(np.float32), "b": np.arange(7, dtype=np.uint16), "c": np.array([True])}
    of_tree = fingerprint(tree)
    for name, leaf in tree.items():
        for bit in rng.permutation(8 * leaf.nbytes)[:40] if leaf.dtype != bool else [0]:
            content = bytearray(leaf.tobytes())
            content[bit // 8] ^= 1 << (bit % 8)
            other = fingerprint({**tree, name: np.frombuffer(bytes(content), leaf.dtype)})
            assert int(jnp.sum(other != of_tree)) == 1
    swapped = {**tree, "a": tree["a"][::-1].copy()}
    assert int(fingerprint(swapped)[0]) != int(of_tree[0])


def test_fingerprints_do_not_depend_on_devices():
    state = state_of(3)
    wanted = fingerprint(state)
    for placing in ("pmap", "sharded"):
        np.testing.assert_array_equal(fingerprint(jax.device_put(state, Trainer(placing).shardings(state))), wanted)


def hollowed(folder):
    """As a copy that broke off leaves it."""
    (folder / "3").mkdir()


def piped(folder):
    shutil.copytree(folder / "2", folder / "3")
    (folder / "3" / "default" / "_METADATA").unlink()
    os.mkfifo(folder / "3" / "default" / "_METADATA")


@pytest.mark.parametrize("spoil", [hollowed, piped])
def test_one_that_was_never_whole_takes_none_with_it(two, spoil):
    spoil(two)
    (step, state), said = newest(two)
    assert step == 2
    assert same(state, state_of(2))
    assert len(said) == 1
    assert (two / "damaged_3").is_dir()
    assert newest(saved(two, (3,)))[0][0] == 3


EXHAUSTED = ValueError("RESOURCE_EXHAUSTED: too many open files")
BROKEN_DISK = ValueError("UNKNOWN: Failed to read from file: Input/output error [os_error_code='5']")


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), MemoryError("no"), EXHAUSTED, BROKEN_DISK])
def test_what_is_no_fault_of_the_files_moves_none_of_them(two, monkeypatch, error):
    def fails(self, step, args):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "restore", fails)
        with pytest.raises(
            ValueError, match=r"2 cannot be read now \(.*\): nothing was changed, so try again"
        ) as raised:
            newest(two)
    assert not isinstance(raised.value, DamagedError)
    assert newest(two)[0][0] == 2


def test_a_file_that_may_not_be_read_is_not_damaged(two, monkeypatch):
    def refused(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    hidden = two / "2" / "default" / "manifest.ocdbt"
    hidden.rename(hidden.with_name("hidden"))
    monkeypatch.setattr("builtins.open", refused)  # the tests may run as root, who may read all
    assert files.refusal(two / "2").errno == errno.EACCES
    monkeypatch.undo()
    assert files.refusal(two / "2") is None
    assert newest(two)[0][0] == 1


def test_one_that_is_not_sound_is_not_gone_on_from(two):
    said, checkpoints = [], Checkpoints(two, keep=10)
    step, state = checkpoints.restore_newest(like(state_of(0)), said.append, lambda step, state: step < 2)
    checkpoints.close()
    assert (step, int(state["step"])) == (1, 1)
    assert "2 is not finite, or of another step; it is now damaged_2" in said[0]


def test_when_all_are_damaged_nothing_is_touched(two):
    for step in (1, 2):
        for path in (two / str(step)).rglob("d/*"):
            path.write_bytes(b"")
    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}
    with pytest.raises(DamagedError, match=r"no checkpoint can be gone on from: .*--restart starts over"):
        newest(two)
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before


def test_a_full_disk(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    monkeypatch.setattr("jaxdiff.base.files.free_bytes", lambda folder: 10**6)
    with pytest.raises(ValueError, match=r"disk full: .* has 1 MB of space left, a checkpoint needs 197 kB: make"):
        checkpoints.save(1, state_of(1))
    checkpoints.close()
    assert list(tmp_path.iterdir()) == []


def test_names(tmp_path):
    assert unused(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run_2").mkdir()
    assert unused(tmp_path / "run") == tmp_path / "run_3"
    assert free_bytes(tmp_path / "not" / "yet") == free_bytes(tmp_path) > 0


def test_names_beside_are_of_no_other_process_and_none_is_left(tmp_path):
    with files.beside(tmp_path / "a") as one, files.beside(tmp_path / "a") as other:
        assert one != other
        one.write_text("a file")
        other.mkdir()
        (other / "within").write_text("a folder")
    assert list(tmp_path.iterdir()) == []
    files.write(tmp_path / ("long" * 60), "content")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["content"]


def test_what_a_killed_process_left_goes_once_the_folder_is_held(tmp_path):
    kept = {".hidden", "a.part", ".a.part", f".b.{'g' * 16}.part"}
    for name in (*kept, f".config.json.{'0' * 16}.part"):
        (tmp_path / name).write_text("")
    (tmp_path / f".codec.{'1' * 16}.part").mkdir()
    with files.locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*kept, "lock"}


def test_a_lock_of_another_user_can_be_waited_for_but_not_taken(tmp_path, monkeypatch):
    (tmp_path / "lock").write_text("process 1")
    usual = open

    def refused(path, mode="r", **options):  # the tests may run as root, who may write all
        if mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return usual(path, mode, **options)

    monkeypatch.setattr("builtins.open", refused)
    files.hold(tmp_path / "lock", wait=True).close()
    with pytest.raises(PermissionError):
        files.hold(tmp_path / "lock")
    monkeypatch.undo()
    assert (tmp_path / "lock").read_text() == "process 1"
