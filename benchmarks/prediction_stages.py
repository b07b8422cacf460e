"""Time the stages of predicting a folder, alone and overlapping.

Usage: python -m benchmarks.prediction_stages MODEL IMAGES --device cuda [-o benchmarks/results/NAME.json]

MODEL is a model folder or a plan. With a plan the network has its initial weights, and takes the same time. First each
case is read and preprocessed, segmented, and written, one stage after the other, and each stage is timed. Then the
folder is predicted as by `scanseg predict`: while a case is segmented, the next case is prepared and the last one is
written. `hidden` is the part of the time for preparing and writing that this saves. The first case is predicted once
before, untimed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.machine import describe_run
from scanseg.imaging import write_label_map
from scanseg.inference import Predictor, load
from scanseg.inference.outputs import CaseOutputs, OutputOptions, find_outputs
from scanseg.models import network_of
from scanseg.runtime.device import choose_device
from scanseg.specs import Plan


@dataclass(frozen=True)
class Stages:
    """Seconds of each stage, summed over all cases."""

    num_cases: int
    preparing: float
    segmenting: float
    writing: float
    folder: float
    """Seconds of the whole folder with overlapping stages."""

    @property
    def hidden(self) -> float:
        """Part of the time for preparing and writing that overlaps with segmenting.

        It is below 0 if the folder took longer than all stages one after the other.
        """
        beside = self.preparing + self.writing
        return (beside + self.segmenting - self.folder) / beside


def main(words: Sequence[str] | None = None) -> int:
    """Time the stages and return 0 if overlapping them saved time."""
    arguments = _parse(words)
    device = choose_device(arguments.device)
    stages = time_stages(_predictor(arguments.model, device), arguments.images)
    found = {**asdict(stages), "hidden": stages.hidden}
    print(json.dumps(found, indent=1), flush=True)
    if arguments.output is not None:
        about = describe_run(device, commit=arguments.commit)
        record = {**about, "model": str(arguments.model), "images": str(arguments.images), **found}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if stages.hidden > 0 else 1


def time_stages(predictor: Predictor, images: Path) -> Stages:
    """Time the stages one after the other, then overlapping.

    Args:
        predictor: The predictor.
        images: Folder of images.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        options = OutputOptions(probabilities=False, entropy=False, disagreement=False)
        cases = find_outputs([images], output / "alone", dataset=predictor.plan.dataset, options=options)
        (output / "alone").mkdir()
        predictor.predict(cases[0].case.images)
        seconds = [0.0] * 3
        for outputs in cases:
            for number, taken in enumerate(_one_by_one(predictor, outputs)):
                seconds[number] += taken
        begin = time.monotonic()
        predictor.predict_folder(images, output / "together")
        return Stages(len(cases), *seconds, folder=time.monotonic() - begin)


def _one_by_one(predictor: Predictor, outputs: CaseOutputs) -> tuple[float, float, float]:
    """Return the seconds of each stage of a case."""
    times = [time.monotonic()]
    prepared = predictor.prepare(outputs.case.images)
    times.append(time.monotonic())
    label_map = predictor.predict_prepared(prepared).label_map  # in host memory, so the device has finished
    times.append(time.monotonic())
    write_label_map(outputs.label_map, label_map, like=prepared.image)
    times.append(time.monotonic())
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def _predictor(model: Path, device: torch.device) -> Predictor:
    """Load a model, or build the network of a plan."""
    if model.is_dir():
        return load(model, device=str(device))
    plan = Plan.read(model)
    torch.manual_seed(0)
    network = network_of(plan)
    return Predictor(plan, network, device=device, model=str(model))


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder or plan")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
