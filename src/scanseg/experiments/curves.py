"""The figure of a training, in its model folder."""

from scanseg.figures import draw_loss, draw_validation_dice
from scanseg.files import written_whole
from scanseg.models import ModelFolder


def write_curves(folder: ModelFolder) -> None:
    """Draw loss and validation Dice over epochs.

    Nothing is drawn if matplotlib is missing, as on a machine that only trains. The numbers are in the metrics.

    Args:
        folder: The model folder.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return
    metrics = folder.metrics.read_all()
    if not metrics:
        return
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw_loss(left, metrics)
    draw_validation_dice(right, metrics)
    with written_whole(folder.curves_path) as temporary:
        figure.savefig(temporary, dpi=100)
