"""`--set path.to.key=value` on documents."""

import pytest

from scanseg.errors import UsageError
from scanseg.settings import apply_settings, compare_settings, setting_texts
from scanseg.specs import (
    AdamWSpec,
    AffineTransform,
    GammaTransform,
    InferenceSpec,
    MSVMUNetSpec,
    Plan,
    SamplingSpec,
    TrainingSpec,
)
from tests.factories import make_plan


@pytest.fixture
def plan() -> Plan:
    return make_plan(
        MSVMUNetSpec(),
        patch_size=(64, 64),
        recipe="msvm-unet",
        preprocessing={"slice_size": (64, 64)},
        sampling=SamplingSpec(patch_size=(64, 64), batch_size=2, order="every-slice"),
        augmentation=(AffineTransform(), GammaTransform()),
    )


def test_values_are_changed_by_path_in_a_copy(plan: Plan) -> None:
    changed = apply_settings(
        plan,
        ["training.epochs=3", "augmentation.1.probability=0.5", "network.upsampling=bilinear", "num_axes=2"],
    )
    assert (changed.training.epochs, changed.augmentation[1].probability) == (3, 0.5)
    assert changed.network == MSVMUNetSpec(upsampling="bilinear")
    assert plan.training.epochs == TrainingSpec().epochs
    assert apply_settings(plan, []) is plan
    assert apply_settings(plan, "training.epochs=3").training.epochs == 3


def test_values_are_json_or_text(plan: Plan) -> None:
    changed = apply_settings(
        plan,
        [
            'training.optimizer={"kind": "adamw", "lr": 1e-3}',
            "training.gradient_clip=null",
            "training.loss.dice_squared=true",
            "network.depths=[1, 1, 1, 1]",
            "dataset_path=/data/a=b",
        ],
    )
    assert changed.training.optimizer == AdamWSpec(lr=1e-3)
    assert changed.training.gradient_clip is None
    assert changed.training.loss.dice_squared is True
    assert changed.network == MSVMUNetSpec(depths=(1, 1, 1, 1))
    assert changed.dataset_path == "/data/a=b"


def test_a_later_setting_changes_an_earlier_one(plan: Plan) -> None:
    changed = apply_settings(
        plan, ['training.optimizer={"kind": "adamw", "lr": 1}', "training.optimizer.lr=0.25"]
    )
    assert changed.training.optimizer == AdamWSpec(lr=0.25)


def test_settings_are_checked_together(plan: Plan) -> None:
    both = ["sampling.patch_size=[96, 96]", "preprocessing.slice_size=[96, 96]"]
    assert apply_settings(plan, both).sampling.patch_size == (96, 96)
    with pytest.raises(UsageError, match=r"slice_size \(64, 64\) and patch_size \(96, 96\) must be equal"):
        apply_settings(plan, both[:1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "--set epochs: expected path.to.key=value."),
        ("=3", "--set =3: expected path.to.key=value."),
        (
            "epochs=3",
            "--set epochs: the document has no 'epochs' (perhaps training.epochs). Use one of format, recipe, dataset,",
        ),
        ("trainig.epochs=3", "the document has no 'trainig' (perhaps training). Use one of"),
        ("colour=3", "the document has no 'colour'. Use one of format,"),
        ("training.case_storage=dsik", """'device', 'host' or 'disk', not "dsik" (perhaps disk)"""),
        (
            "training.epoch=3",
            "--set training.epoch: training has no 'epoch' (perhaps training.epochs). Use one of epochs, ",
        ),
        ("augmentation.2.probability=1", "augmentation has no entry '2'. Use an entry from 0 to 1."),
        ("augmentation.-1.probability=1", "augmentation has no entry '-1'. Use an entry from 0 to 1."),
        ("inference.mirror_axes.0=1", "inference.mirror_axes has no entry '0'. It has no entries."),
        ("training.max_minutes.x=1", "training.max_minutes is the value null, which has no parts."),
        ("training.epochs=-3", "--set training.epochs=-3: training.epochs: Input should be greater than 0"),
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.gradient_clip=NaN", "training.gradient_clip: Input should be a finite number"),
        ('sampling={"patch_size": [64, 64]}', "sampling.batch_size: Field required"),
        ('network={"kind": "unet"}', "network: Input tag 'unet' found using 'kind' does not match"),
    ],
)
def test_faults_name_the_path_and_the_valid_values(plan: Plan, setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_settings(plan, [setting])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_wrong_settings_are_named(plan: Plan) -> None:
    right = ["training.seed=3", "network.depths=[1, 1, 1, 1]", "sampling.batch_size=4"]
    with pytest.raises(UsageError) as caught:
        apply_settings(plan, [*right, "training.epochs=0"])
    assert str(caught.value) == (
        "--set training.epochs=0: training.epochs: Input should be greater than 0, not 0"
    )
    with pytest.raises(UsageError) as caught:
        apply_settings(plan, [*right, "sampling.patch_size=[96, 96]"])
    assert str(caught.value) == (
        "--set sampling.patch_size=[96, 96]: slice_size (64, 64) and patch_size (96, 96) must be equal"
    )
    with pytest.raises(UsageError) as caught:
        apply_settings(plan, ["training.seed=3", 'network={"kind": "msvm-net"}'])
    assert str(caught.value).startswith(
        """--set network={"kind": "msvm-net"}: network: Input tag 'msvm-net' found"""
    )
    assert str(caught.value).endswith("(perhaps msvm-unet)")


def test_all_faults_are_one_error(plan: Plan) -> None:
    with pytest.raises(UsageError) as caught:
        apply_settings(plan, ["training.epochs=0", "training.seed=-1"])
    assert "training.epochs" in str(caught.value)
    assert "training.seed" in str(caught.value)


def test_differences_have_path_and_both_values(plan: Plan) -> None:
    assert compare_settings(plan, apply_settings(plan, ["training.epochs=1000"])) == []
    changed = apply_settings(plan, ["training.epochs=3", "network.depths=[1, 1, 1, 1]"])
    assert compare_settings(plan, changed) == [
        "network.depths is [2, 2, 8, 2], not [1, 1, 1, 1]",
        "training.epochs is 1000, not 3",
    ]
    other = apply_settings(plan, ['training.optimizer={"kind": "adamw"}'])
    (difference,) = compare_settings(plan, other)
    assert difference.startswith('training.optimizer is {"kind": "sgd"')


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.epochs=" + "9" * 5000, "expected integers of at most 100 digits, got 5000"),
        ("augmentation=" + "[" * 1000 + "]" * 1000, "expected at most 64 levels"),
        ('training.loss={"dice_weight": 1, "dice_weight": 2}', 'each key once, got "dice_weight"'),
        ("recipe=" + "x" * 20_000, "expected at most 10000 printable characters as text, got 20000"),
        ("recipe=a\0b", "printable characters"),
        ("recipe=\udcff", "printable characters"),
        ("training.gradient_clip=1e999", "beyond the range"),
        ("augmentation." + "9" * 5000 + "=1", "augmentation has no entry"),
        ("x" * 5000 + "=1", "the document has no 'xxx"),
        ("training." + "x" * 5000 + "=1", "training has no 'xxx"),
        ("training.epochs=" + "x" * 5000, "training.epochs: Input should be a valid integer"),
        ("x" * 5000, "expected path.to.key=value"),
        ("." * 5000 + "=1", "the document has no ''"),
        ("sampling.patch_size=" + "[-1," * 0 + str([-1] * 5000), "sampling.patch_size"),
    ],
)
def test_any_setting_is_refused_in_one_short_line(setting: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_settings(make_plan(), [setting])
    message = str(caught.value)
    assert message.startswith("--set ")
    assert words in message
    assert len(message) < 2000
    assert message.isprintable()


def test_many_wrong_settings_are_cut() -> None:
    with pytest.raises(UsageError, match=r" and 97 more: ") as caught:
        apply_settings(make_plan(), [f"training.epochs=-{number}" for number in range(1, 101)])
    assert len(str(caught.value)) < 2000


def test_long_and_many_differences_are_cut() -> None:
    plan = make_plan()
    other = plan.model_copy(update={"recipe": "x" * 5000})
    (difference,) = compare_settings(plan, other)
    assert len(difference) < 200


def test_a_dictionary_changes_the_same_settings(plan):
    values = {
        "training.epochs": 7,
        "sampling.patch_size": (32, 32),
        "preprocessing.slice_size": [32, 32],
        "training.optimizer": {"kind": "adamw", "lr": 0.5},
        "recipe": "2",
    }
    changed = apply_settings(plan, setting_texts(values))
    assert (changed.training.epochs, changed.sampling.patch_size, changed.recipe) == (7, (32, 32), "2")
    assert changed.training.optimizer == AdamWSpec(lr=0.5)
    assert setting_texts("training.epochs=7") == ("training.epochs=7",)


def test_values_that_json_cannot_hold_are_refused():
    with pytest.raises(UsageError, match=r"settings: training\.epochs: expected a number.*got object"):
        setting_texts({"training.epochs": object()})
    with pytest.raises(UsageError, match=r"expected a path such as 'training.epochs' as key, got 3"):
        setting_texts({3: 4})


def test_fields_that_a_document_leaves_out_can_be_set():
    plan = make_plan(inference=InferenceSpec(mirror_axes=(0,)))
    assert '"mirror"' not in plan.to_json()
    assert apply_settings(plan, ["inference.mirror=true"]).inference.mirror
    with pytest.raises(UsageError, match="the document has no 'size'"):  # --size plans, this is its record
        apply_settings(plan, ["size=small"])
    assert apply_settings(plan, ["recipe=test"]).to_json() == plan.to_json()
