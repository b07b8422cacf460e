"""The picture of a training, in its model folder."""

from scanseg.figures import draw_loss, draw_validation_dice
from scanseg.files import written_whole
from scanseg.models import ModelFolder

PICTURE = "curves.png"


def write_curves(folder: ModelFolder) -> None:
    """Draw loss and validation Dice over the epochs; nothing where matplotlib is not there.

    Args:
        folder: The model folder.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return  # a bare machine that trains from a store; the numbers are in metrics.jsonl
    metrics = folder.read_metrics()
    if not metrics:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw_loss(left, metrics)
    draw_validation_dice(right, metrics)
    with written_whole(folder.path / PICTURE) as temporary:
        figure.savefig(temporary, dpi=100)
