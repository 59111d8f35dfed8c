"""Average the weights of a network before and after further training.

    python average.py crossmoda/weights/default.safetensors RUN/last.safetensors OUTPUT.safetensors

Weights between both keep what the first knew, healthy ears above all, and most of what the second learned (Wortsman et
al., Robust fine-tuning of zero-shot models, CVPR 2022). What calibration did to the first is undone before.
"""

import argparse
from pathlib import Path

from calibrate import add_to_logit, scale_logits
from train import widened

from crossmoda import labels, weights


def main() -> None:
    """Average and write, with the card of the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    options = parser.parse_args()
    first, second = weights.load(options.before), weights.load(options.after)
    before, after = widened(first.network.state_dict(), second.network), second.network.state_dict()
    for value, name in ((labels.COCHLEA, "cochlea_logit"), (labels.VS, "tumor_logit")):
        add_to_logit(before, value, -float(first.card.get(name, 0.0)))
    scale_logits(before, float(first.card.get("temperature", 1.0)))
    mixed = {name: after[name] * options.share + value * (1 - options.share) for name, value in before.items()}
    weights.save(options.output, mixed, second.card, half=True)


if __name__ == "__main__":
    main()
