"""Install the wheel with one extra after the other in fresh environments, and run the smallest example of each.

Usage: python scripts/check_extras.py [EXTRA ...] [--wheel FILE] [--constraint FILE] [--lend PACKAGE]

`none` is the installation without extras. Without names, all extras of users are checked. `--lend torch` makes a
package of the calling environment importable instead of installing it, with its dependencies, which saves gigabytes.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = {"dev", "docs", "release"}
"""Extras for work on scanseg itself."""

PICTURE = """
import numpy as np
from PIL import Image
y, x = np.mgrid[:64, :64]
disc = (y - 30) ** 2 + (x - 30) ** 2 < 120
Image.fromarray(np.stack([20 + 180 * disc.astype(np.uint8)] * 3, axis=-1)).save("picture.png")
"""
PREDICTION = (
    "import scanseg; print(scanseg.load('nuclei', device='cpu').predict('picture.png').label_map.shape)"
)
EXAMPLES = {
    "none": PICTURE + PREDICTION,
    "cpu": (
        "from scanseg.ops import describe_backends\n"
        "(cpu,) = [each for each in describe_backends() if each.backend == 'compiled_cpu']\n"
        "assert cpu.reason is None, cpu.reason"
    ),
    "demo": "from scanseg.demo.anatomy import read_template; print(read_template()[0].shape)",
    "tensorboard": (
        "from torch.utils.tensorboard import SummaryWriter\n"
        "with SummaryWriter('log') as writer:\n"
        "    writer.add_scalar('loss', 1, 1)"
    ),
    "h5": "import h5py; h5py.File('case.npy.h5', 'w')['image'] = [1]",
    "tiff": (
        "import numpy as np, tifffile\n"
        "tifffile.imwrite('a.tif', np.eye(8, dtype=np.uint8), compression='zstd')\n"
        "from pathlib import Path\n"
        "from scanseg.imaging import read_image\n"
        "print(read_image(Path('a.tif')).shape)"
    ),
    "dicom": "import highdicom, pydicom, scanseg; print(scanseg.list_series)",
    "onnx": (
        PICTURE + "import scanseg\n"
        "from pathlib import Path\n"
        "from scanseg.pretrained import find_model\n"
        "scanseg.export_onnx(find_model('nuclei'), 'exported')\n"
        "print(scanseg.load('exported').predict('picture.png').label_map.shape)"
    ),
    "openvino": "import openvino; print(openvino.Core().available_devices)",
    "nnunet": "import nnunetv2, scanseg; print(scanseg.import_nnunet)",
    "serve": (
        "import scanseg\nwith scanseg.serve(['nuclei'], port=0, device='cpu') as server:\n    print(server)"
    ),
    "report": (
        "import scanseg\n"
        "from scanseg.pretrained import find_model\n"
        "scanseg.report(find_model('nuclei'), 'report.html')"
    ),
    "film": (
        "import numpy as np, scanseg\n"
        "from scanseg.imaging import Image\n"
        "volume = Image(np.random.rand(1, 8, 64, 64), (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel()))\n"
        "scanseg.show(volume, 'a.mp4')"
    ),
    "ray": "import ray, scanseg; print(scanseg.predict_cohort, ray.__version__)",
    "slurm": "import scanseg, submitit; print(scanseg.predict_cohort, submitit.__version__)",
    "hub": "import pooch, huggingface_hub, scanseg.pretrained",
    "baselines": (
        "from scanseg.networks import NETWORKS, build_network\n"
        "from scanseg.specs import SegResNetSpec\n"
        "print(build_network(SegResNetSpec(num_axes=2), in_channels=1, num_classes=2, patch_size=(32, 32)).training)"
    ),
}
"""Smallest example of each extra, as a program in Python."""


def extras() -> list[str]:
    """Return the extras of users, in the order of `pyproject.toml`."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [name for name in content["project"]["optional-dependencies"] if name not in DEVELOPMENT]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def check(extra: str, wheel: Path, *, constraint: Path | None, lent: list[str]) -> str | None:
    """Install the wheel with an extra and run its example.

    Returns:
        The last lines of the failure, or `None`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        if lent:
            site = subprocess.check_output(
                [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
            )
            places = sorted({str(distribution(package).locate_file("")) for package in lent})
            Path(site.strip(), "lent.pth").write_text("\n".join(places), encoding="utf-8")
        what = str(wheel) if extra == "none" else f"{wheel}[{extra}]"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what]
        install += ["--constraint", str(constraint)] if constraint else []
        scanseg = python.parent / "scanseg"
        for command in (install, [scanseg, "--help"], [scanseg, "info"], [python, "-c", EXAMPLES[extra]]):
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                return "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
    return None


def main() -> int:
    """Check the extras and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--constraint", type=Path)
    parser.add_argument("--lend", action="append", default=[], metavar="PACKAGE")
    arguments = parser.parse_args()
    chosen = arguments.extras or ["none", *extras()]
    unknown = sorted(set(chosen) - EXAMPLES.keys())
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected extras among {', '.join(EXAMPLES)}.")
    failed = []
    with tempfile.TemporaryDirectory() as name:
        wheel = (arguments.wheel or build_wheel(Path(name))).resolve()
        for extra in chosen:
            constraint = arguments.constraint and arguments.constraint.resolve()
            failure = check(extra, wheel, constraint=constraint, lent=arguments.lend)
            print(f"{extra}: {'failed' if failure else 'works'}", flush=True)
            if failure:
                failed.append(extra)
                print(failure, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
