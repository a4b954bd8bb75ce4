"""Draw images from a trained model.

python sample.py                                    # from the run trained last
python sample.py --workdir runs/mnist --labels 0-9 --num 100 --guidance_scale 3
python sample.py --workdir runs/fashion_mnist_text --prompt "an ankle boot"
"""

import argparse
import os
import sys
from pathlib import Path


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", type=Path, help="the folder of the run (default: the one trained last in runs/)")
    parser.add_argument("--num", type=int, help="how many images (default: 64, or as the config shows them)")
    parser.add_argument("--labels", help="labels or names of classes, such as 3 or 0-9 or cat,ship; they take turns")
    parser.add_argument("--prompt", action="append", help="a text; several take turns")
    parser.add_argument("--seed", type=int, default=0, help="image i of a seed is always the same (default: 0)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the config's)")
    parser.add_argument("--guidance_scale", type=float, help="0 unconditional, 1 conditional, above 1 sharper")
    parser.add_argument("--out", type=Path, help="the picture (default: WORKDIR/samples.png)")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    from jaxdiff import parallel  # here, so that --help is quick

    try:
        parallel.prepare()
        from jaxdiff import drawing

        path = drawing.draw(
            arguments.workdir or drawing.newest(Path("runs")),
            num=arguments.num,
            labels=arguments.labels,
            prompts=arguments.prompt,
            seed=arguments.seed,
            steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            out=arguments.out,
        )
    except (ValueError, OSError) as error:
        if os.environ.get("JAXDIFF_TRACEBACK"):
            raise
        print(f"sample.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
