"""What `jaxdiff publish` does: a run's model in a new folder, with a card for people who find it."""

import json
import os
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxdiff
from jaxdiff import interop
from jaxdiff.base import files, pictures
from jaxdiff.base.console import say
from jaxdiff.base.text import shown
from jaxdiff.cli.report import Report, table
from jaxdiff.cli.sample import hashed
from jaxdiff.cli.which import average_of, modules_of
from jaxdiff.models import published
from jaxdiff.models.conditions import Labels, Prompts
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.loading import load, parameters_of
from jaxdiff.models.model import Model
from jaxdiff.models.run import Run, opened


def publish(o: Namespace) -> int:
    """Writes the folder, whole or not at all; the exit code."""
    modules = modules_of(o)
    run = opened(o.workdir, modules)
    if not isinstance(run.config.system, Diffusion):
        raise ValueError(f"{o.workdir} trained {type(run.config.system).__name__}, which draws no images: name another")
    with files.new_folder(o.folder) as folder:
        step, params = parameters_of(run, o.checkpoint, average_of(o.average))
        published.write(folder, run.config, step, params, {"image": run.image, "classes": run.classes or None})
        if run.codec is not None:
            interop.write_codec(folder / "codec", run.codec)
        model = replace(load(folder, code=modules), name=o.folder.name)  # as whoever gets it will
        _draw(folder, model)
        files.write(folder / "README.md", _card(folder, run, model, step, o.license))
    print(shown(str(o.folder)))
    for path in _local(json.loads((o.folder / "config.json").read_text())):
        say(f"config.json names {path}, a place of this machine, for all to see: it is not needed")
    return 0


def _draw(folder: Path, model: Model) -> None:
    _, texts = model.choices()
    count = model.system.shown
    say(f"drawing {count} images")
    pictures.save(folder / "samples.png", pictures.laid_out(model.sample(count), texts))


def _local(config: Any) -> Iterator[str]:
    """Paths that begin at the root of a disk."""
    if isinstance(config, str) and os.path.isabs(config):
        yield config
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _local(part)


# --- the card ---------------------------------------------------------------------------------------------------------

_CARD = """---
license: {license}
library_name: jaxdiff
pipeline_tag: {task}
tags:
- jax
- diffusion
- jaxdiff
---

# {name}

{about}

![samples](samples.png)

`pip install jaxdiff huggingface_hub`, and with the name that this has on the Hub, or its folder, in place of `{place}`:

```python
import jaxdiff

model = jaxdiff.load("{place}"{code})
jaxdiff.show(model.sample(16{condition}))
```

    jaxdiff sample --workdir {place} --num 16

Trained by jaxdiff {version} for {step:,} steps of {batch:,} images of {data}; `config.json` says all of it.{diffusers}

{numbers}
"""


def _card(folder: Path, run: Run, model: Model, step: int, license: str) -> str:
    condition, place = model.system.condition, f"hub:me/{model.name}"
    how = {Labels: "labels", Prompts: "prompts"}.get(type(condition))
    return _CARD.format(
        license=license,
        task="text-to-image" if how == "prompts" else "unconditional-image-generation",
        name=model.name,
        about=textwrap.indent(repr(model), "    "),
        place=place,
        code="".join(f", code=[{', '.join(module.__name__ for module in run.code)}]" for _ in run.code[:1]),
        condition="" if how is None else f", {how}={model.choices()[1][0]!r}",
        version=jaxdiff.__version__,
        step=step,
        batch=run.config.batch_size,
        data=run.config.data,
        diffusers=_for_diffusers(folder / "diffusers", model),
        numbers=_numbers(folder / "evaluation.json", run.folder / "evaluation.json", model),
    )


def _for_diffusers(folder: Path, model: Model) -> str:
    """Writes the network as PyTorch has it, and says so; nothing if PyTorch has none of its kind."""
    try:
        net: Any = model.system.net  # which may be anyone's
        height, width, _ = model.shape
        interop.write(folder, net, {"params": model.params}, height if height == width else (height, width))
    except ValueError as error:
        say(f"no diffusers folder: {error}")
        return ""
    return " `diffusers/` holds the network alone, for the `from_pretrained` of diffusers."


def _numbers(path: Path, source: Path, model: Model) -> str:
    """What evaluate.py found of these parameters, as a table; copied. That of others is left out."""
    mine = hashed((model.params, model.codec, None))
    results = [each for each in Report(source).results if _parameters(each["of"]) == mine]
    if not results:
        return "It has not been evaluated."
    files.write(path, json.dumps(files.read_json(source) | {"results": results}, indent=1) + "\n")
    rows = [(_said(each["of"]), each["numbers"]) for each in results if "samples" in each["of"]]
    lines = [table(rows)] * bool(rows) + [_likelihood(each) for each in results if "samples" not in each["of"]]
    return f"By `jaxdiff evaluate` (`evaluation.json`):\n\n```\n{chr(10).join(lines)}\n```"


def _parameters(of: dict[str, Any]) -> Any:
    return of.get("samples", of).get("parameters")


def _said(of: dict[str, Any]) -> str:
    """What distances are of."""
    return f"{of['samples']['count']:,} images, {of['samples']['how']}, by {of['features']['name']}"


def _likelihood(result: dict[str, Any]) -> str:
    bits, of = result["numbers"]["bits per dimension"], result["of"]
    return (
        f"{of['count']:,} real images have {bits['value']:.4f} +-{bits['error']:.4f} bits per dimension, by {of['how']}"
    )
