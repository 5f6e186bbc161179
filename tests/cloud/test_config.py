"""Run configurations and recipes: all recipes are valid, every mistake is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_adapt.cloud.config import DataConfig, RunConfig, differences
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.losses import CROSS_ENTROPY
from edge_adapt.cloud.recipes import read_recipe, recipe_names
from edge_adapt.cloud.settings.tables import read_toml, write_toml
from edge_adapt.cloud.settings.typed import to_table

BASE = {"data": {"name": "glyphs"}}


def test_there_are_recipes_for_each_method_and_each_kind_of_data() -> None:
    names = recipe_names()
    expected = {"pmeta-conv4-glyphs", "pmeta-conv4-folder", "pmeta-conv4-folder84-5shot"}
    methods = ("pmeta", "mamlpp", "anil", "maml")
    expected |= {f"{method}-conv4-omniglot-{shots}shot" for method in methods for shots in (1, 5)}
    added = ("fomaml", "fomamlpp", "boil", "reptile", "leap", "imaml", "mrml")
    expected |= {f"{method}-conv4-omniglot-1shot" for method in added}
    expected |= {f"{method}-mlp-sinusoid-10shot" for method in ("maml", "pmeta")}
    expected |= {f"{name}-miniimagenet-5shot" for name in ("pmeta-conv4", "mamlpp-conv4", "pmeta-resnet12")}
    assert expected <= set(names)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_valid_says_what_it_is_and_survives_config_toml(name: str) -> None:
    config = RunConfig.from_table(read_recipe(name))
    assert config.recipe == name
    assert len(config.summary) > 10
    classes = f"{config.task.ways}-way " if config.loss is CROSS_ENTROPY else ""
    assert f", {classes}{config.task.shots}-shot" in config.summary
    assert RunConfig.from_table(read_toml(write_toml(to_table(config)), name)) == config


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("method.inner_step_size", -0.1, r"method\.inner_step_size must be above 0, got -0\.1"),
        ("method.inner_steps", 0, r"method\.inner_steps must be at least 1, got 0"),
        ("method.rho_fw", 1.0, r"method\.rho_fw must be in \[0, 1\), or none, got 1\.0"),
        ("method.name", "mamal", r"method\.name must be one of .*maml.*got 'mamal'"),
        ("method.penalty", "l1", r"method\.penalty must be one of"),
        ("method.attenton", True, r"method\.attenton is no setting; known here: .*attention"),
        ("backbone", "conv5", r"backbone must be one of conv4.*got 'conv5'"),
        (
            "data.name",
            "mnist",
            r"data\.name must be one of glyphs, .*, miniimagenet, caltech101, folder, sinusoid, arrays, got 'mnist'",
        ),
        ("data.size", 28, r"data\.size: glyphs brings its own, got 28"),
        ("method.task_layers", "fc", r"method\.task_layers: expected a list such as \[\"fc\"\], got 'fc'"),
        ("seed", 99999999999999999999999, r"seed must be at least 0 and below 2\^63, got 9999"),
        ("task.ways", 1, r"task\.ways must be at least 2, got 1"),
        (
            "data.name",
            "sinusoid",
            r"task\.ways must be 1 for regression tasks \(task\.shots counts .*, got 5",
        ),
        ("task.shots", 0, r"task\.shots must be at least 1, got 0"),
        ("task.queries", 0, r"task\.queries must be at least 1"),
        ("train.outer_steps", 0, r"train\.outer_steps must be at least 1"),
        ("train.outer_steps", 1.5, r"train\.outer_steps: expected a whole number, got 1\.5"),
        ("train.learning_rate", 0.0, r"train\.learning_rate must be above 0"),
        (
            "train.final_learning_rate",
            1.0,
            r"train\.final_learning_rate must be in \[0, train\.learning_rate\]",
        ),
        ("train.validation_tasks", 1, r"train\.validation_tasks must be at least 2"),
        ("seed", -1, r"seed must be at least 0"),
        ("seed.x", 1, r"seed: expected a whole number"),
        ("taks.ways", 3, r"taks is no setting; known here: .*task"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(setting: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_table(BASE, {setting: value})


def test_a_folder_needs_channels_size_mean_and_std() -> None:
    with pytest.raises(ConfigError, match=r"data\.channels: images of a folder need it"):
        DataConfig("folder")
    with pytest.raises(ConfigError, match=r"data: .*input\.mean: expected one finite number per channel"):
        DataConfig("folder", channels=3, size=32, mean=(0.5,), std=(0.5, 0.5, 0.5))
    spec = DataConfig("folder", channels=1, size=20, mean=(0.5,), std=(0.25,), resize="bilinear").spec()
    assert spec is not None
    assert (spec.shape, spec.resize) == ((1, 20, 20), "bilinear")


def test_packed_images_may_have_another_size_and_a_disk_cache() -> None:
    assert DataConfig("miniimagenet").spec() is None
    spec = DataConfig("miniimagenet", size=224, resize="bilinear").spec()
    assert spec is not None
    assert (spec.shape, spec.mean[0], spec.resize) == ((3, 224, 224), 0.485, "bilinear")
    cache = DataConfig("caltech101", cache_size="2GB", cache="here").disk_cache()
    assert cache is not None
    assert (cache.folder.name, cache.size_bytes) == ("here", 2 * 10**9)
    assert DataConfig("miniimagenet").disk_cache() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "glyphs", "cache_size": "2GB"}, r"data\.cache_size: images of glyphs are not decoded"),
        ({"name": "omniglot", "size": 84}, r"data\.size: omniglot brings its own, got 84"),
        ({"name": "miniimagenet", "mean": [0.5]}, r"data\.mean: miniimagenet brings its own"),
        (
            {"name": "miniimagenet", "cache_size": "2 gigs"},
            r"data\.cache_size: size '2 gigs' is not understood",
        ),
        ({"name": "miniimagenet", "cache": "here"}, r"data\.cache: 'here' would have no effect without"),
        ({"name": "miniimagenet", "size": -1}, r"data: input\.height: expected a positive integer, got -1"),
    ],
)
def test_a_cache_or_size_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_table({"data": settings})


def test_arrays_may_bring_mean_and_std_and_regressions_neither_turn_nor_move_samples() -> None:
    table = {"data": {"name": "arrays"}, "task": {"ways": 1}}
    assert RunConfig.from_table(table, {"data.mean": [0.5], "data.std": [2]}).data.std == (2.0,)
    for setting, value, message in (
        ("data.size", 28, r"data\.size: arrays brings its own, got 28"),
        ("task.rotations", True, r"task\.rotations must be false for regression tasks"),
        ("task.augmentation", 0.5, r"task\.augmentation must be 0 for regression tasks"),
    ):
        with pytest.raises(ConfigError, match=message):
            RunConfig.from_table(table, {setting: value})


def test_options_of_the_architecture_survive_and_those_that_are_none_are_left_away() -> None:
    config = RunConfig.from_table(BASE, {"architecture": {"norm": "none", "width": 0.5, "hidden": [4, 5]}})
    assert config.architecture == {"width": 0.5, "hidden": [4, 5]}
    assert RunConfig.from_table(read_toml(write_toml(to_table(config)), "")) == config
    assert differences(config, RunConfig.from_table(BASE)) == [
        "architecture.width: 0.5 -> None",
        "architecture.hidden: [4, 5] -> None",
    ]


def test_a_changed_setting_is_reported_but_not_where_the_data_lie() -> None:
    table = {"data": {"name": "omniglot"}}
    old = RunConfig.from_table(table)
    assert differences(old, RunConfig.from_table(table, {"data.root": "elsewhere", "summary": "x"})) == []
    changed = RunConfig.from_table(table, {"task.shots": 5, "method.rho_fw": 0.5})
    assert differences(old, changed) == ["task.shots: 1 -> 5", "method.rho_fw: 0.3 -> 0.5"]


def test_data_that_are_built_in_have_no_place() -> None:
    with pytest.raises(ConfigError, match=r"data\.root: glyphs is built in, so 'x' would have no effect"):
        DataConfig("glyphs", root="x")


def test_a_recipe_file_may_extend_a_packaged_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "pmeta-conv4-glyphs"\n[task]\nways = 3\n')
    config, base = (RunConfig.from_table(read_recipe(name)) for name in (str(path), "pmeta-conv4-glyphs"))
    assert (config.recipe, config.task.ways) == ("mine", 3)
    assert {line.split(":")[0] for line in differences(base, config)} <= {"task.ways"}


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text(f'extends = "{second}"\n')
    second.write_text(f'extends = "{first}"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        read_recipe(str(first))


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no recipe is called 'pmeta'.*pmeta-conv4-glyphs"):
        read_recipe("pmeta")
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        read_recipe("nowhere.toml")


def test_a_recipe_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"photo\.toml is damaged: not text in UTF-8"):
        read_recipe(str(tmp_path / "photo.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml is no file"):
        read_recipe(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize("name", ["glyphs", "omniglot", "sinusoid"])
def test_a_filter_for_images_that_are_never_resized_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.resize: no image of .* is resized, so 'bilinear' would"):
        DataConfig(name, resize="bilinear")
