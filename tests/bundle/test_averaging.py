"""Several networks as one predictor: the mean of probabilities, whatever each one's size, order and views."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from untrained_bundle import write_bundle, write_ensemble

from mlcls.bundle import networks as networks_module
from mlcls.bundle.ensemble import mean_probabilities
from mlcls.bundle.files import load_bundle
from mlcls.bundle.predictor import Predictor
from mlcls.bundle.saved import common_predictions
from mlcls.bundle.together import thresholds_together, tuned_together
from mlcls.errors import BundleError, RecipeError
from mlcls.images import load as load_module
from mlcls.images.tta import tta_views
from mlcls.scoring.predictions import Predictions
from mlcls.scoring.thresholds import tune_report

Photos = Callable[[int], list[str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles: two see 32 px, one 48 and has its attributes in another order. Tests must not change them."""
    folder = tmp_path_factory.mktemp("models")
    return [
        write_bundle(folder / "a", seed=1),
        write_bundle(folder / "b", seed=2, attributes=("three", "one", "two"), size=48),
        write_bundle(folder / "c", seed=3),
    ]


@pytest.fixture(scope="module")
def ensemble(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ensemble(tmp_path_factory.mktemp("ensemble") / "out", models)


def probabilities(predictor: Predictor, paths: list[str]) -> np.ndarray:
    """[N, A] in the order one, two, three."""
    rows = predictor.predict(paths)
    found = [{one["name"]: one["probability"] for one in row["attributes"]} for row in rows]
    return np.array([[row[name] for name in ("one", "two", "three")] for row in found], dtype=np.float32)


@pytest.mark.parametrize("count", [1, 40])
def test_an_ensemble_gives_the_mean_of_its_members(
    count: int, models: list[Path], ensemble: Path, photos: Photos
) -> None:
    paths = photos(count)
    alone = np.stack([probabilities(Predictor(model), paths) for model in models])
    assert np.ptp(alone, axis=0).max() > 0.05
    predictor = Predictor(ensemble)
    found = probabilities(predictor, paths)
    np.testing.assert_allclose(found, alone.mean(axis=0), atol=1e-6)
    assert predictor.predict(paths[0])[0]["attributes"][0]["threshold"] == 0.3
    assert predictor.engine == "onnx"
    assert predictor.note is None
    np.testing.assert_allclose(found, probabilities(Predictor(models), paths), atol=1e-6)
    np.testing.assert_array_equal(found, probabilities(pickle.loads(pickle.dumps(predictor)), paths))


def test_a_model_counts_once_however_many_members_it_has(
    models: list[Path], ensemble: Path, photos: Photos
) -> None:
    paths = photos(5)
    both = Predictor([models[0], ensemble])
    expected = (probabilities(Predictor(models[0]), paths) + probabilities(Predictor(ensemble), paths)) / 2
    np.testing.assert_allclose(probabilities(both, paths), expected, atol=1e-6)


def test_networks_that_see_an_image_alike_decode_it_once(
    models: list[Path], ensemble: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlcls.bundle import predictor as predictor_module

    sizes = []

    def counted(path: str, preprocessing: object, **options: object) -> object:
        sizes.append(preprocessing.image_size)  # type: ignore[attr-defined]
        return load_module.load_image(path, preprocessing, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor_module, "load_image", counted)
    predictor = Predictor(ensemble)
    assert [one.image_size for one in predictor.preprocessings] == [32, 48]
    predictor.predict(photos(1))
    assert sorted(sizes) == [32, 48]


def test_an_image_that_cannot_be_read_is_one_row(ensemble: Path, photos: Photos) -> None:
    rows = Predictor(ensemble).predict([*photos(3), "nowhere.jpg"])
    assert ["error" in row for row in rows] == [False, False, False, True]


def test_prepared_images_come_in_every_form(ensemble: Path) -> None:
    predictor = Predictor(ensemble)
    forms = [
        np.zeros((2, form.image_size, form.image_size, 3), np.uint8) for form in predictor.preprocessings
    ]
    scores = predictor.scores(*forms)
    streamed = list(predictor.stream_scores(2, *(lambda number, form=form: form[number] for form in forms)))
    np.testing.assert_allclose(np.stack(streamed), scores, atol=1e-6)
    with pytest.raises(ValueError, match="expected images in 2 forms, got 1"):
        predictor.scores(forms[0])


def test_features_stand_side_by_side(models: list[Path], ensemble: Path, photos: Photos) -> None:
    paths = photos(3)
    alone = [Predictor(model).embed(paths) for model in models]
    found = Predictor(ensemble).embed(paths)
    np.testing.assert_allclose(found, np.concatenate(alone, axis=1), atol=1e-5)
    assert Predictor(ensemble).embed([]).shape == (0, found.shape[1])


def test_raw_scores_of_several_networks_are_refused(models: list[Path], ensemble: Path) -> None:
    for model in (ensemble, models[:2]):
        with pytest.raises(RecipeError, match="--raw"):
            Predictor(model, raw=True)


def test_an_ensemble_beside_its_own_member_is_refused(ensemble: Path) -> None:
    member = next(path for path in (ensemble / "members").iterdir())
    with pytest.raises(RecipeError, match=r"is a member of .*out; its say would count twice"):
        Predictor([ensemble, member])


def test_other_attributes_are_refused_by_name(models: list[Path], tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", with_model=False, attributes=("one", "two", "four"))
    with pytest.raises(BundleError, match=r"a: lacks the attributes four of .*other"):
        Predictor([models[0], other])
    with pytest.raises(RecipeError, match="is named twice"):
        Predictor([models[0], str(models[0]) + "/"])
    with pytest.raises(RecipeError, match="name a bundle's folder"):
        Predictor([])


def test_forms_are_told_apart_by_what_their_pixels_depend_on() -> None:
    from mlcls.images.preprocess import Preprocessing

    black, grey = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
    same = networks_module._form_of
    assert same(Preprocessing(32, mean=black, std=grey, crop_pct=0.9)) == same(Preprocessing(32))
    assert same(Preprocessing(32, "pad", mean=black)) != same(Preprocessing(32, "pad"))
    assert same(Preprocessing(32, "pad", std=grey, crop_pct=0.9)) == same(Preprocessing(32, "pad"))
    assert same(Preprocessing(32, "crop", crop_pct=0.9)) != same(Preprocessing(32, "crop"))
    assert same(Preprocessing(32, interpolation="bilinear")) != same(Preprocessing(32))


def test_averaging_through_onnx_imports_nothing_that_training_needs(
    models: list[Path], ensemble: Path, photos: Photos
) -> None:
    flags = [
        "--model",
        str(ensemble),
        str(models[0]),
        "--image",
        *photos(1),
        "--tta",
        "flip",
        "--format",
        "json",
    ]
    code = f"import sys, mlcls.predict as p; assert p.main({flags!r}) == 0; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "onnxruntime" in loaded
    assert not loaded & {
        "torch",
        "timm",
        "pandas",
        "sklearn",
        "albumentations",
        "scipy",
        "matplotlib",
        "PIL",
        "rich",
    }


# views


def by_views(model: Path, paths: list[str], names: str) -> np.ndarray:
    """An oracle: raw scores of each view's pixels, their mean, calibrated."""
    raw, bundle = Predictor(model, raw=True, tta="none"), load_bundle(model)
    pixels = np.stack([load_module.load_image(path, bundle.preprocessing) for path in paths])
    seen = [raw.scores(np.stack([view(image) for image in pixels])) for view in tta_views(names)]
    return bundle.calibration.apply(mean_probabilities(seen))


@pytest.mark.parametrize(
    ("names", "count"), [("flip", 2), ("flip,zoom", 4), ("rot90", 4), ("zoom,rot90,flip", 16)]
)
def test_probabilities_of_views_are_averaged_before_calibration(
    names: str, count: int, models: list[Path], photos: Photos
) -> None:
    paths = photos(4)
    assert len(tta_views(names)) == count
    predictor = Predictor(models[0], tta=names)
    found = probabilities(predictor, paths)
    np.testing.assert_allclose(found, by_views(models[0], paths, names), atol=1e-6)
    assert np.abs(found - probabilities(Predictor(models[0]), paths)).max() > 1e-3
    assert predictor.note is not None
    assert f"--tta {names}: calibration and thresholds were made with --tta none" in predictor.note


def test_a_bundle_remembers_its_views(photos: Photos, tmp_path: Path) -> None:
    paths, model = photos(3), write_bundle(tmp_path / "m", tta="flip, zoom")
    predictor = Predictor(model)
    assert predictor.note is None
    assert Predictor(model, tta="zoom,flip").note is None
    np.testing.assert_allclose(
        probabilities(predictor, paths), by_views(model, paths, "flip,zoom"), atol=1e-6
    )
    plain = Predictor(model, tta="none")
    assert plain.note is not None
    np.testing.assert_allclose(probabilities(plain, paths), by_views(model, paths, "none"), atol=1e-6)


def test_a_members_own_views_hold_in_an_ensemble(models: list[Path], photos: Photos, tmp_path: Path) -> None:
    paths, turned = photos(3), write_bundle(tmp_path / "m", seed=9, tta="rot90")
    expected = (by_views(models[0], paths, "none") + by_views(turned, paths, "rot90")) / 2
    found = probabilities(Predictor([models[0], turned], threshold=0.5), paths)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_views_that_are_none_are_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--tta: unknown view 'flop'; did you mean 'flip'"):
        Predictor(models[0], tta="flop")
    with pytest.raises(RecipeError, match="tta: expected names"):
        Predictor(models[0], tta=["flip"])  # type: ignore[arg-type]
    write_bundle(tmp_path / "m", with_model=False, tta="os:system")
    with pytest.raises(BundleError, match=r"lacks or misnames a field: tta 'os:system'"):
        load_bundle(tmp_path / "m")


# thresholds of several


def saved(
    images: int, seed: int, names: tuple[str, ...] = ("one", "two", "three"), first: int = 0
) -> Predictions:
    """Predictions whose labels are a function of the image, and whose scores lean to them."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(first, first + images)
    columns = {"one": numbers % 2, "two": numbers % 3 == 0, "three": numbers % 5 < 2}
    labels = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
    scores = np.clip(0.3 * labels + rng.uniform(0.2, 0.6, labels.shape), 0, 1).astype(np.float32)
    return Predictions(tuple(f"{number}.png" for number in numbers), names, scores, labels)


def test_thresholds_are_tuned_on_the_mean_of_what_all_have(tmp_path: Path, photos: Photos) -> None:
    swapped = ("three", "one", "two")
    one, two = saved(60, 0), saved(50, 1, swapped, first=10)
    folders = [
        write_bundle(tmp_path / "a", val=one),
        write_bundle(tmp_path / "b", attributes=swapped, val=two),
    ]
    bundles = [load_bundle(folder) for folder in folders]
    mean = (one.scores[10:] + two.scores[:, [1, 2, 0]]) / 2
    expected = tune_report(one.labels[10:], mean, "f1", one.attributes, estimator="exact")
    tuned, said = tuned_together(bundles)
    assert [row.threshold for row in tuned] == pytest.approx([row.threshold for row in expected], abs=1e-6)
    assert tuned[0].known == 50
    assert "the 50 validation images that all have, for f1" in said
    values, again = thresholds_together(bundles)
    assert values.tolist() == [row.threshold for row in tuned]
    assert again == said
    predictor = Predictor(folders)
    assert predictor.note == said
    assert predictor.thresholds.tolist() == values.tolist()
    assert Predictor(folders, threshold=0.7).note is None
    row = predictor.predict(photos(1))[0]
    assert [one["threshold"] for one in row["attributes"]] == values.tolist()


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (None, "this run had no validation subset"),
        (saved(60, 1, first=60), "no image in common"),
        (saved(60, 1, first=57), "have 3 images in common, too few to tune"),
        (
            saved(60, 1, first=40),
            "have 20 images in common, too few to tune",
        ),  # a third of what each was tuned on
    ],
)
def test_else_thresholds_are_the_mean_of_their_own(
    second: Predictions | None, why: str, tmp_path: Path
) -> None:
    folders = [write_bundle(tmp_path / "a", val=saved(60, 0)), write_bundle(tmp_path / "b", val=second)]
    bundles = [load_bundle(folder) for folder in folders]
    low, high = 0.1, 0.6
    for bundle, value in zip(bundles, (low, high), strict=True):
        for row in bundle.thresholds:
            object.__setattr__(row, "threshold", value)
            object.__setattr__(row, "positive", 24)  # of 60 images
    values, said = thresholds_together(bundles)
    odds = np.sqrt(low / (1 - low) * high / (1 - high))
    np.testing.assert_allclose(values, odds / (1 + odds), rtol=1e-12)
    assert why in said
    tuned, _ = tuned_together(bundles)
    assert [row.threshold for row in tuned] == values.tolist()
    assert tuned[0].note == "the mean of 2 models' thresholds, on the scale of logits"


def test_one_name_of_two_images_is_told(tmp_path: Path) -> None:
    one, two = saved(60, 0), saved(60, 1)
    labels = two.labels.copy()
    labels[7, 1] = 1 - labels[7, 1]
    labels[8, 1] = np.nan
    folders = [
        write_bundle(tmp_path / "a", val=one),
        write_bundle(tmp_path / "b", val=Predictions(two.images, two.attributes, two.scores, labels)),
    ]
    with pytest.raises(BundleError, match=r"the opposite of each other in 1 labels, first 'two' of 7.png"):
        common_predictions([load_bundle(folder) for folder in folders], "val")


def test_a_label_that_one_knows_is_known(tmp_path: Path) -> None:
    one, two = saved(60, 0), saved(60, 1)
    blank = np.where(np.arange(60)[:, None] < 30, np.nan, one.labels).astype(np.float32)
    folders = [
        write_bundle(tmp_path / "a", val=Predictions(one.images, one.attributes, one.scores, blank)),
        write_bundle(tmp_path / "b", val=two),
    ]
    for order in (folders, folders[::-1]):
        common = common_predictions([load_bundle(folder) for folder in order], "val")
        np.testing.assert_array_equal(common.predictions.labels, one.labels)
        assert common.counts == (60, 60)
