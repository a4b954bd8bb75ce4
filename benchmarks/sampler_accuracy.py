"""How many steps does a sampler take to draw recognisable digits? By two runs, of a model and of a classifier.

    python train.py --config configs/mnist.py && python train.py --config configs/mnist_classifier.py
    python benchmarks/sampler_accuracy.py runs/mnist runs/mnist_classifier    # 25 minutes on 2 cores

Each sampler draws the same images of all labels, without guidance. A cell of the table is the share that the classifier
tells at zero noise, and the seconds for 100 images, compilation apart.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import environment, pictures
from jaxdiff.core import grids, samplers
from jaxdiff.data import Examples
from jaxdiff.models.loading import load, load_classifier
from jaxdiff.models.model import Classifier, Model

BATCH, BATCHES, STEPS = 100, 3, (5, 10, 20, 40)
SAMPLERS = (
    samplers.DDPM(),
    samplers.DDPM(variance=1.0),
    samplers.DDIM(),
    samplers.DDIM(eta=1.0),
    samplers.Euler(),
    samplers.Heun(),
    samplers.EDM(),
    samplers.EDM(churn=5.0),
    samplers.DPMpp2S(),
    samplers.DPMpp2M(),
    samplers.DPMpp2M(eta=1.0),
    samplers.UniPC(),
    samplers.UniPC(order=3),
    samplers.EulerMaruyama(),
    samplers.ReverseDiffusion(),
    samplers.PredictorCorrector(),
)
ADAPTIVE = samplers.AdaptiveODE(rtol=1e-2, atol=1e-2)


def cell(model: Model, judge: Classifier, **options: Any) -> str:
    """What comes of one sampler: the share that is recognised, and seconds."""
    drawn, moments = [], []
    for batch in model.batches(BATCH * BATCHES, guidance_scale=1.0, batch_size=BATCH, **options):
        drawn.append(batch)
        moments.append(time.perf_counter())  # the first batch compiles
    numbers, x = map(np.concatenate, zip(*drawn, strict=True))
    examples = Examples(pictures.to_uint8(x), numbers % judge.system.network.classes)
    share = judge.system.accuracy(judge.params, examples, judge.system.process.t_min, len(examples))
    return f"{share:.1%}, {(moments[-1] - moments[0]) / (BATCHES - 1):.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder of a run that knows labels")
    parser.add_argument("classifier", type=Path, help="and of one that tells them")
    arguments = parser.parse_args()
    environment.prepare()
    model, judge = load(arguments.model), load_classifier(arguments.classifier)
    print(f"| {BATCH * BATCHES} images | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print("|" + " --- |" * (len(STEPS) + 1))
    for sampler in SAMPLERS:
        cells = [cell(model, judge, sampler=sampler, steps=steps) for steps in STEPS]
        print(f"| `{sampler}` | {' | '.join(cells)} |", flush=True)
    print(f"\n`{ADAPTIVE}`: {cell(model, judge, sampler=ADAPTIVE, steps=1, grid=grids.Uniform())}")


if __name__ == "__main__":
    main()
