"""Machines that one has not: programs are compiled for them here, by the compilers that would do it there.

Nothing runs, so what is known is what the compilers say: the memory that is needed, and the bytes and FLOPs of a step,
which bound its speed (the roofline).
"""

import importlib.metadata
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from packaging.requirements import Requirement

from jaxdiff.base import devices
from jaxdiff.base.text import first_line
from jaxdiff.base.words import amount
from jaxdiff.nets.layers import concrete
from jaxdiff.nets.machine import Kind

# it would ask the network where it is, and complain of the answer; the last lets another process hold a TPU meanwhile
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True)
class Target:
    """One kind of machine; the figures are its maker's, for one chip, without sparsity."""

    title: str
    memory: float  # bytes
    bandwidth: float  # bytes a second
    bfloat16: float  # FLOPs a second
    float32: float  # as JAX multiplies by default: in bfloat16 on a TPU, in TF32 on a GPU that has it
    topology: str = "1x1x1"
    card: tuple[int, int, int, int, int, float, str] | None = None  # of a GPU, for its compiler

    @cached_property
    def devices(self) -> Sequence[Any]:
        """Descriptions of its chips, to compile for."""
        for name, value in LIBTPU.items():
            os.environ.setdefault(name, value)
        try:
            return self._topology().devices
        except Exception as error:  # a plugin that is missing or refuses says so in many classes
            needed = "jax[tpu]" if self.card is None else "jax[cuda12]"
            cure = f'pip install "{needed}=={jax.__version__}"'
            raise ValueError(f"compiling for {self.title} takes {needed}: {cure} ({first_line(error)[:150]})") from None

    def _topology(self) -> Any:
        from jax.experimental import topologies

        if self.card is not None:
            return topologies.get_topology_desc("", "cuda", topology="1x1x1", target_config=self._described())
        _check_libtpu()
        bounds = (*map(int, self.topology.partition(":")[2].split("x")), 1)
        return topologies.get_topology_desc(platform="tpu", topology_name=self.topology, chips_per_host_bounds=bounds)

    @property
    def kind(self) -> Kind:
        new = self.card is not None and self.card[0] >= 8
        return Kind("tpu" if self.card is None else "gpu", bfloat16=self.card is None or new, cudnn=new)

    def _described(self) -> str:
        """The card in the words of XLA's TargetConfig."""
        assert self.card is not None
        major, minor, cores, shared, cache, clock, name = self.card
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: {1024 if major < 8 else 2048}
              shared_memory_per_block: 49152  shared_memory_per_core: {shared + 1024}
              shared_memory_per_block_optin: {shared}  core_count: {cores}  fpus_per_core: {64 if major < 9 else 128}
              block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
              memory_bandwidth: {self.bandwidth:.0f}  l2_cache_size: {cache}  clock_rate_ghz: {clock}
              device_memory_size: {self.memory:.0f}  registers_per_core_limit: 65536  registers_per_block_limit: 65536
              cuda_compute_capability {{ major: {major} minor: {minor} }}
            }}
            platform_name: "CUDA"  dnn_version_info {{ major: 9 minor: 8 patch: 0 }}  device_description_str: "{name}"
        """


def _check_libtpu() -> None:
    """What another libtpu than JAX's own has compiled, JAX may read wrongly, and take all memory for it."""
    try:
        there = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return  # JAX says so itself
    for asked in map(Requirement, importlib.metadata.requires("jax") or ()):
        applies = asked.marker is None or asked.marker.evaluate({"extra": "tpu"})
        if asked.name == "libtpu" and applies and not asked.specifier.contains(there, prereleases=True):
            raise ValueError(f"JAX {jax.__version__} reads programs of libtpu {asked.specifier}, and this is {there}")


OF_A_GPU = 0.75  # of its memory JAX takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
TPU_V5E = (16e9, 819e9, 197e12, 197e12)
TPU_V6E = (32e9, 1640e9, 918e12, 918e12)
H100 = (9, 0, 132, 232448, 52428800, 1.98, "NVIDIA H100")  # compute capability, cores, shared memory, cache, GHz
A100 = (8, 0, 108, 166912, 41943040, 1.41, "NVIDIA A100")
T4 = (7, 5, 40, 65536, 4194304, 1.59, "Tesla T4")
TARGETS = {
    "v5e": Target("a TPU v5e", *TPU_V5E, topology="v5e:1x1"),
    "v5e-4": Target("a TPU v5e-4", *TPU_V5E, topology="v5e:2x2"),
    "v5e-8": Target("a TPU v5e-8", *TPU_V5E, topology="v5e:2x4"),
    "v6e": Target("a TPU v6e", *TPU_V6E, topology="v6e:1x1"),
    "v6e-4": Target("a TPU v6e-4", *TPU_V6E, topology="v6e:2x2"),
    "h100": Target("an H100", 84.9e9, 3352e9, 989e12, 494e12, card=H100),
    "a100": Target("an A100 of 40 GB", 42.3e9, 1555e9, 312e12, 156e12, card=A100),
    "t4": Target("a T4", 15.8e9, 320e9, 8.1e12, 8.1e12, card=T4),  # it has no bfloat16
}


def target(name: str) -> Target:
    """The machine of that name, as --target has it."""
    if name not in TARGETS:
        raise ValueError(f"--target must be one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]


@dataclass(frozen=True)
class Bound:
    """How fast a machine can be at most at a program that makes so many images."""

    where: Target
    images: int
    flops: float
    moved: float  # bytes, by each of its chips
    dtype: str

    @property
    def computing(self) -> float:
        """Seconds."""
        peak = self.where.float32 if self.dtype == "float32" else self.where.bfloat16
        return self.flops / peak / len(self.where.devices)

    @property
    def moving(self) -> float:
        return self.moved / self.where.bandwidth

    @property
    def moved_an_image(self) -> float:
        return self.moved * len(self.where.devices) / self.images

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.computing, self.moving)

    def __str__(self) -> str:
        flops, moved = amount(self.flops / self.images, "FLOP"), amount(self.moved_an_image, "B")
        slower = "memory" if self.moving > self.computing else "computing"
        each = f"computing takes {1e3 * self.computing:.3g} ms a batch, memory {1e3 * self.moving:.3g} ms"
        return f"an image    {flops} in {self.dtype}, {moved} to and from memory\nbound by    {slower}: {each}"


# --- what a compiled program says of itself --------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """What a program needs of the memory of a machine, in bytes."""

    machine: str
    has: int
    arguments: int  # such as parameters
    needs: int  # in all

    @property
    def fits(self) -> bool:
        return self.needs <= self.has

    @property
    def times(self) -> int:
        """How often what is computed would find room, arguments once."""
        return int((self.has - self.arguments) / max(self.needs - self.arguments, 1))

    def __str__(self) -> str:
        said = f"{self.machine} (needs {amount(self.needs, 'B')} of {amount(self.has, 'B')})"
        return f"fits {said}" if self.fits else f"does not fit {said}"


def room(compiled: Any, chips: int, where: Target | None = None) -> Room | None:
    """In one of so many chips, or on all of this machine's CPUs, which share it; None if it is not told."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    arguments = found.argument_size_in_bytes
    needs = arguments + found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    if where is not None:
        share = 1 if where.card is None else OF_A_GPU
        return Room(where.title, int(share * where.memory), arguments, needs)
    has, sharing = devices.memory(), chips if jax.default_backend() == "cpu" else 1
    return None if has is None else Room("this machine", has, sharing * arguments, sharing * needs)


def bytes_moved(compiled: Any) -> float:
    """Between the memory of one device and its chip, by the arrays in its program.

    Of a loop whose turns are not known one counts, and of branches the one that moves most. On a TPU they are known of
    loops that count from 0 to a constant, one by one, as those of `scan` do.

    What XLA's own analysis calls "bytes accessed" is more on a TPU, three times as much for a UNet: it counts what is
    read from the memory on the chip, too, and each of the copies that are sent there ahead twice.
    """
    program = compiled.as_text()
    parts = re.split(r"\n(?=(?:ENTRY )?%?[\w.-]+ \(.*\{\n)", program)
    bodies = {re.split(r"[ (]", part.removeprefix("ENTRY "))[0].lstrip("%"): part for part in parts[1:]}
    return _moved(next(part for part in parts if part.startswith("ENTRY")), bodies)


_ARRAY = re.compile(r"\b(pred|bf16|f8\w+|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(?:, |$)(.*)")
_TURNS = re.compile(r"known_trip_count\W+n\W+(?P<n>\d+)")
# the condition of a loop whose counter is to be less than a constant; that it counts from 0, one by one, is assumed
_END = re.compile(
    r"%([\w.-]+) = s32\[\]\S* constant\((?P<n>\d+)\)(?:.*\n)*?\s+ROOT .* compare\(%[\w.-]+, %\1\), direction=LT"
)
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
_PARTS = {"slice", "dynamic-slice", "gather"}  # which read no more than they give
_AHEAD = {"copy-start", "slice-start"}  # (from, to, ...): whose other half is -done


def _moved(part: str, bodies: dict[str, str]) -> float:
    """Each instruction reads its operands and writes its result; what is fused, or in memory space S(1), is on chip."""
    arrays: dict[str, int] = {}
    moved = 0.0
    for line in part.splitlines():
        found = _INSTRUCTION.match(line)
        if found is None:
            continue
        name, result, operation, operands, rest = found.groups()
        arrays[name] = sum(map(_bytes, _ARRAY.findall(result)))
        read = [arrays.get(each, 0) for each in re.findall(r"%([\w.-]+)", operands)]
        inner = [_moved(bodies[each], bodies) for each in _inner(operation, rest)]
        if inner:
            moved += max(inner) * _turns(rest, bodies)
        elif operation in _AHEAD:
            moved += _sent(_ARRAY.findall(result))
        elif operation in _PARTS:
            moved += 2 * arrays[name]
        elif operation not in _FREE and not operation.endswith("-done"):
            cut = _cut(bodies.get(_named("calls", rest), ""))
            moved += arrays[name] + sum(min(size, cut.get(place, size)) for place, size in enumerate(read))
    return moved


def _inner(operation: str, rest: str) -> list[str]:
    """The computations that it runs as they are; those of fusions are not."""
    if operation == "conditional":
        return re.findall(r"%([\w.-]+)", " ".join(re.findall(r"(?:branch|true|false)_computations?=\{?([^}=]*)", rest)))
    return [_named("body|to_apply", rest)] if operation in ("while", "call") else []


def _named(kind: str, rest: str) -> str:
    found = re.search(rf"(?:{kind})=%?([\w.-]+)", rest)
    return "" if found is None else found[1]


def _turns(rest: str, bodies: dict[str, str]) -> int:
    """Of a loop: as said, or, as a TPU's compiler does not say it, the constant that its counter is held against."""
    found = _TURNS.search(rest) or _END.search(bodies.get(_named("condition", rest), ""))
    return 1 if found is None else int(found["n"])


def _cut(fused: str) -> dict[int, int]:
    """Of a fused computation the operands, by their places, from which parts are read only; and how much."""
    places: dict[str, int] = {}
    uses: dict[str, list[int | None]] = {}
    for found in map(_INSTRUCTION.match, fused.splitlines()):
        if found is not None and found[3] == "parameter":
            places[found[1]] = int(found[4])
        elif found is not None:
            size = sum(map(_bytes, _ARRAY.findall(found[2])))
            for i, each in enumerate(re.findall(r"%([\w.-]+)", found[4])):
                uses.setdefault(each, []).append(size if found[3] in _PARTS and i == 0 else None)
    known = {places[name]: sizes for name, sizes in uses.items() if name in places}
    return {place: sum(size or 0 for size in sizes) for place, sizes in known.items() if None not in sizes}


def _sent(arrays: list[tuple[str, str, str]]) -> int:
    """As much as the smaller of both, what is cut out, for each that is not on the chip."""
    sides = [array for array in arrays if array[1]][:2]
    return min(_bytes(side, anywhere=True) for side in sides) * sum(_bytes(side) > 0 for side in sides)


def _bytes(array: tuple[str, str, str], anywhere: bool = False) -> int:
    kind, shape, layout = array
    if re.search(r"S\([1-9]", layout) and not anywhere:
        return 0
    width = 1 if kind == "pred" else max(int(re.sub(r"\D", "", kind.partition("e")[0])) // 8, 1)
    return width * math.prod(int(n) for n in shape.split(",") if n)


def dtype_of(system: Any) -> str:
    """What the network of a system computes in, however it is wrapped."""
    inner = getattr(system, "network", None)
    return concrete(getattr(system, "dtype", "float32")) if inner is None else dtype_of(inner)
