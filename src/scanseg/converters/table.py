"""Table of the named data sets."""

from functools import partial

from scanseg.converters import abdomen, acdc, brats, endovis, pictures, raw_layout, synapse
from scanseg.converters import instances as objects
from scanseg.converters.sources import Layout, NamedDataset
from scanseg.errors import UsageError
from scanseg.specs import BACKGROUND, DatasetSpec

_NNUNET_FILES = "nnU-Net's layout: dataset.json, imagesTr/, labelsTr/, and imagesTs/, labelsTs/"
_COLOURS = ("R", "G", "B")
_NO_SPLIT = "none is published: folds are drawn (five, as nnU-Net)"


def _spec(
    name: str, channels: tuple[str, ...], labels: dict[str, int], *, file_ending: str = ".nii.gz"
) -> DatasetSpec:
    return DatasetSpec(
        name=name, channel_names=channels, labels={BACKGROUND: 0, **labels}, file_ending=file_ending
    )


def _raw(spec: DatasetSpec, number: str) -> Layout:
    """Return the nnU-Net layout of a data set of U-Mamba and xLSTM-UNet.

    Args:
        spec: Expected labels.
        number: Name of the data set there, such as `Dataset702`.
    """
    return Layout(f"{_NNUNET_FILES} ({number})", partial(raw_layout.find_raw, spec=spec))


_SYNAPSE = _spec(
    "synapse",
    ("CT",),
    {
        "aorta": 1,
        "gallbladder": 2,
        "left kidney": 3,
        "right kidney": 4,
        "liver": 5,
        "pancreas": 6,
        "spleen": 7,
        "stomach": 8,
    },
)
_ACDC = _spec("acdc", ("MRI",), {"RV": 1, "myocardium": 2, "LV": 3})
_ABDOMEN_MR = _spec("abdomen-mr", ("MRI",), abdomen.ORGANS)
_ABDOMEN_CT = _spec("abdomen-ct", ("CT",), abdomen.ORGANS)
_ENDOVIS = _spec("endovis17", _COLOURS, endovis.INSTRUMENTS, file_ending=".png")
_CELLS = _spec("neurips-cell", _COLOURS, objects.LABELS, file_ending=".png")
_NUCLEI = _spec("dsb2018", _COLOURS, objects.LABELS, file_ending=".png")
_OBJECTS = _spec("instances-3d", ("intensity",), objects.LABELS)
_POLYPS = _spec("kvasir-seg", _COLOURS, {"polyp": 1}, file_ending=".png")
_HIPPOCAMPUS = _spec("hippocampus", ("MRI",), {"anterior": 1, "posterior": 2})
_BRATS = DatasetSpec(
    name="brats23",
    channel_names=brats.CHANNELS,
    labels={BACKGROUND: 0, **brats.REGIONS},
    regions_class_order=brats.REGION_ORDER,
    file_ending=".nii.gz",
)

_ALL = (
    NamedDataset(
        name="synapse",
        content="abdominal CT of BTCV, 30 cases, 8 organs, clipped to [-125, 275] HU",
        homepage="https://www.synapse.org/Synapse:syn3193805",
        split="TransUNet's 18 training and 12 test cases",
        layouts=(
            Layout(
                "TransUNet: train_npz/caseNNNN_sliceNNN.npz, test_vol_h5/caseNNNN.npy.h5",
                synapse.find_transunet,
            ),
            Layout(
                "BTCV: img/imgNNNN.nii.gz, label/labelNNNN.nii.gz, also in RawData/Training",
                synapse.find_btcv,
            ),
        ),
        spec=_SYNAPSE,
    ),
    NamedDataset(
        name="acdc",
        content="cine MRI of the heart, 100 patients, two frames each: RV, myocardium, LV",
        homepage="https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
        split="70 training, 10 validation, 20 test patients, as MSVM-UNet",
        layouts=(
            Layout(
                "official: [training/]patientNNN/patientNNN_frameMM.nii.gz, ..._gt.nii.gz", acdc.find_official
            ),
            Layout("MT-UNet: {train,valid,test}/case_NNN_{sliceED_S,volume_ED}.npz", acdc.find_mtunet),
            Layout(f"{_NNUNET_FILES}, cases patientNNN_...", partial(acdc.find_nnunet, spec=_ACDC)),
        ),
        spec=_ACDC,
    ),
    NamedDataset(
        name="abdomen-mr",
        content="abdominal MRI of AMOS22, 13 organs",
        homepage="https://zenodo.org/records/7262581",
        split="AMOS' 60 labelled MRI train; the papers' 50 test cases are in U-Mamba's data set only",
        layouts=(
            Layout("AMOS22: imagesTr/amos_NNNN.nii.gz, labelsTr/, imagesVa/, labelsVa/", abdomen.find_amos),
            _raw(_ABDOMEN_MR, "Dataset702"),
        ),
        spec=_ABDOMEN_MR,
    ),
    NamedDataset(
        name="abdomen-ct",
        content="abdominal CT of FLARE22, 50 labelled cases, 13 organs",
        homepage="https://zenodo.org/records/7860267",
        split="all labelled cases train; the papers' 50 test cases are in U-Mamba's data set only",
        layouts=(
            Layout(
                "FLARE22: images/FLARE22_Tr_NNNN_0000.nii.gz, labels/FLARE22_Tr_NNNN.nii.gz",
                abdomen.find_flare,
            ),
            _raw(_ABDOMEN_CT, "Dataset701"),
        ),
        spec=_ABDOMEN_CT,
    ),
    NamedDataset(
        name="endovis17",
        content="endoscopy, 10 videos, 7 instruments",
        homepage="https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org",
        split="frames 0 to 224 of videos 1 to 8 train (1800), the others test (1200)",
        layouts=(
            Layout(
                ".../instrument_dataset_N/left_frames/frameNNN.png with ground_truth/INSTRUMENT_labels/ or "
                "gt/TypeSegmentation/",
                endovis.find_videos,
            ),
            _raw(_ENDOVIS, "Dataset704"),
        ),
        spec=_ENDOVIS,
    ),
    NamedDataset(
        name="neurips-cell",
        content="microscopy of cells, 1000 training and 101 test images; interior and boundary of instances",
        homepage="https://neurips22-cellseg.grand-challenge.org",
        split="Training-labeled trains, Tuning tests",
        layouts=(
            Layout("Training-labeled/images/, labels/NAME_label.tiff, and Tuning/", objects.find_neurips),
            _raw(_CELLS, "Dataset703"),
        ),
        spec=_CELLS,
    ),
    NamedDataset(
        name="brats23",
        content="glioma in MRI of four channels, 1251 cases; whole tumour, core, enhancing tumour as regions",
        homepage="https://www.synapse.org/brats2023",
        split=f"70 % train, 10 % validate, 20 % test, drawn (seed {brats.SPLIT_SEED}), as no list is published",
        layouts=(
            Layout(
                "BraTS 2023: [.../]BraTS-GLI-NNNNN-NNN/BraTS-GLI-NNNNN-NNN-{t1n,t1c,t2w,t2f,seg}.nii.gz",
                partial(brats.find_brats, year="2023"),
            ),
            Layout(
                "BraTS 2021: [.../]BraTS2021_NNNNN/BraTS2021_NNNNN_{t1,t1ce,t2,flair,seg}.nii.gz",
                partial(brats.find_brats, year="2021"),
            ),
        ),
        spec=_BRATS,
    ),
    NamedDataset(
        name="msd",
        content="any task of the Medical Segmentation Decathlon, or any data set in nnU-Net's layout",
        homepage="http://medicaldecathlon.com",
        split=_NO_SPLIT,
        layouts=(
            Layout(
                "dataset.json, imagesTr/ (channels as a fourth axis or as files), labelsTr/",
                raw_layout.find_raw,
                is_general=True,
            ),
        ),
        spec=None,
    ),
    NamedDataset(
        name="hippocampus",
        content="MRI crops of the hippocampus (Decathlon, Task04): anterior, posterior",
        homepage="http://medicaldecathlon.com",
        split="five folds, as nnU-Net",
        layouts=(
            Layout("dataset.json, imagesTr/, labelsTr/", partial(raw_layout.find_raw, spec=_HIPPOCAMPUS)),
        ),
        spec=_HIPPOCAMPUS,
    ),
    NamedDataset(
        name="dsb2018",
        content="nuclei (Data Science Bowl 2018), or any pictures with instances; interior and boundary of instances",
        homepage="https://bbbc.broadinstitute.org/BBBC038",
        split="train/ and test/ if they exist, else a quarter is drawn as test set",
        layouts=(
            Layout(
                "[train/, test/]images/NAME.*, instances/NAME.* or masks/NAME.*: a number for each instance",
                objects.find_numbered,
                is_general=True,
            ),
            Layout("Kaggle: [stage1_train/]ID/images/ID.png, ID/masks/*.png", objects.find_bowl),
        ),
        spec=_NUCLEI,
        test_fraction=0.25,
    ),
    NamedDataset(
        name="instances-3d",
        content="any volumes of one channel with numbered instances; interior and boundary of instances",
        homepage="",
        split=_NO_SPLIT,
        layouts=(
            Layout(
                "images/NAME.*, instances/NAME.*: a number for each instance",
                objects.find_volumes,
                is_general=True,
            ),
        ),
        spec=_OBJECTS,
    ),
    NamedDataset(
        name="kvasir-seg",
        content="endoscopy of polyps, or any pictures with masks of 0 and 255",
        homepage="https://datasets.simula.no/kvasir-seg",
        split="a tenth is drawn as test set",
        layouts=(
            Layout("images/NAME.*, masks/NAME.*: 0 and 255, also JPEG", pictures.find_masks, is_general=True),
        ),
        spec=_POLYPS,
        test_fraction=0.1,
    ),
)

NAMED_DATASETS: dict[str, NamedDataset] = {dataset.name: dataset for dataset in _ALL}
"""Data sets that can be converted, by name."""


def find_dataset(name: str) -> NamedDataset:
    """Return a data set by its name.

    Args:
        name: Name in `NAMED_DATASETS`.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in NAMED_DATASETS:
        raise UsageError(f"data set {name!r} is unknown. Choose one of {', '.join(NAMED_DATASETS)}.")
    return NAMED_DATASETS[name]
