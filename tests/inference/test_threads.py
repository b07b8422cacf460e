"""One predictor in several threads, as in a service."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from scanseg.inference import Predictor


def test_threads_share_a_predictor(make_plan, rng):
    plan = make_plan(preprocessing={"spacing": None})
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    predictor = Predictor(plan, network, device=torch.device("cpu"))
    images = [rng.normal(size=(12, 10 + index, 9)).astype(np.float32) for index in range(8)]
    expected = [predictor.predict(image).label_map for image in images]
    assert any(0 < label_map.mean() < 1 for label_map in expected)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: predictor.predict(image).label_map, images * 3))
    for index, label_map in enumerate(together):
        np.testing.assert_array_equal(label_map, expected[index % len(images)])
