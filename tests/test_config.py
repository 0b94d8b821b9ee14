"""Configuration: what is read, what wins, what is refused and with which words."""

import fnmatch
import json
import re
from operator import attrgetter
from pathlib import Path

import pytest
from pydantic import ValidationError

from ragray.config import Config, known_keys, load_config, to_yaml, with_present_names
from ragray.config.renamed import RENAMED
from ragray.config.usage import USED
from ragray.errors import ConfigError

DEFAULTS = Config()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def refusal(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read.


def test_without_file_and_overrides_the_defaults_apply() -> None:
    assert load_config() == DEFAULTS


def test_a_file_changes_only_the_keys_that_it_names(file: Path) -> None:
    file.write_text("train:\n  epochs: 3\n")
    config = load_config(file)
    assert config.train.epochs == 3
    assert config.model_copy(update={"train": DEFAULTS.train}) == DEFAULTS
    assert config.train.model_copy(update={"epochs": 1.0}) == DEFAULTS.train


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "train:\n"])
def test_an_empty_file_or_section_changes_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_config(file) == DEFAULTS


def test_an_override_wins_over_the_file_and_the_last_override_wins(file: Path) -> None:
    file.write_text("retrieve:\n  k: 5\n  threads: 2\n")
    config = load_config(file, ["retrieve.k=6", "retrieve.k=7"])
    assert (config.retrieve.k, config.retrieve.threads) == (7, 2)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("retrieve.k=7", 7),
        ("ingest.deduplicate=false", False),
        ("train.generator_lr=1e-4", 1e-4),
        ("evaluate.recall_at=[1, 3]", (1, 3)),
        ("index.type=flat", "flat"),
    ],
)
def test_an_override_is_read_as_the_type_of_its_field(override: str, value: object) -> None:
    section, key = override.partition("=")[0].split(".")
    assert getattr(getattr(load_config(None, [override]), section), key) == value


@pytest.mark.parametrize("text", ["007", "1e3", "true", "null", "", "a=b", "query: ", "[x", "2024-01-01", "~/models"])
def test_an_override_of_a_string_is_taken_literally(text: str) -> None:
    assert load_config(None, [f"generate.model={text}"]).generate.model == text


# What is refused.


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.epoch=3", "'train.epochs'"),
        ("retreive.k=3", "'retrieve.k'"),
        ("retrieve.nprobe=3", "'index.nprobe'"),
        ("generate.learning_rate=3", "`ragray config show`"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(override: str, nearest: str) -> None:
    message = refusal(None, override)
    assert f"unknown key '{override.partition('=')[0]}'" in message
    assert nearest in message


def test_an_unknown_key_in_a_file_names_the_file(file: Path) -> None:
    file.write_text("train:\n  epoch: 3\n")
    message = refusal(file)
    assert message.startswith(f"{file}:2: unknown key 'train.epoch'")
    assert "did you mean 'train.epochs'?" in message


RENAMES = {
    "train.k": "retrieve.k",
    "train.temperature": "generate.passage_temperature",
    "generate.temperature": "generate.passage_temperature",
    "train.max_answer_tokens": "generate.max_new_tokens",
    "serve.retriever_replicas": "retrieve.num_replicas",
}


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in RENAMES.items() if "temperature" not in old])
def test_a_renamed_key_is_taken_under_its_present_name_and_said(
    file: Path, old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    def value(config: Config) -> object:
        return attrgetter(new)(config)

    assert value(load_config(None, [f"{old}=3"])) == 3
    assert value(load_config(None, [f"{new}=2", f"{old}=3"])) == 3, "the last one counts"
    section, key = old.split(".")
    file.write_text(f"cluster:\n  wait_s: 1\n{section}:\n  {key}: 4\n")
    assert value(load_config(file)) == 4
    assert f"override: {old} is now {new} and taken for it; rename it" in caplog.messages
    assert f"{file}:4: {old} is now {new} and taken for it; rename it" in caplog.messages


@pytest.mark.parametrize("old", ["train.temperature", "generate.temperature"])
def test_an_earlier_key_that_could_mean_two_things_is_refused_with_the_present_one(file: Path, old: str) -> None:
    assert refusal(None, f"{old}=1") == f"override: {old} is now generate.passage_temperature; rename it"
    section, key = old.split(".")
    file.write_text(f"{section}:\n  {key}: 1\n")
    assert refusal(file) == f"{file}:2: {old} is now generate.passage_temperature; rename it"


def test_a_key_given_under_both_names_in_a_file_is_refused(file: Path) -> None:
    file.write_text("retrieve:\n  k: 3\ntrain:\n  k: 4\n")
    assert refusal(file) == f"{file}: retrieve.k is given twice, once under its earlier name; remove one"


def test_every_renamed_key_is_known_under_its_present_name_alone() -> None:
    assert RENAMED == RENAMES
    assert set(RENAMED.values()) <= set(known_keys())
    assert not set(RENAMED) & set(known_keys())


def test_what_an_artefact_recorded_is_read_under_present_names() -> None:
    assert with_present_names("generate", {"model": "m", "temperature": 0.1}) == {
        "model": "m",
        "passage_temperature": 0.1,
    }
    assert with_present_names("train", {"k": 2, "epochs": 1}) == {"k": 2, "epochs": 1}, "renamed into another section"
    assert with_present_names("generate", None) is None


def test_a_key_that_a_yaml_merge_brings_is_named_with_the_file(file: Path) -> None:
    file.write_text("index:\n  <<: {epochs: 1}\n")
    assert refusal(file).startswith(f"{file}: unknown key 'index.epochs'")


@pytest.mark.parametrize(
    ("section", "advice"),
    [("tran", "did you mean 'train'?"), ("zzz", "known: ingest, embed, index"), ("1", "known: ingest, embed, index")],
)
def test_an_unknown_section_is_answered_with_the_nearest_or_with_all(file: Path, section: str, advice: str) -> None:
    file.write_text(f"{section}:\n  epochs: 3\n")
    message = refusal(file)
    assert message.startswith(f"{file}:1: unknown section '{section}'")
    assert advice in message


def test_a_value_that_is_not_allowed_is_named_with_file_key_and_found_value(file: Path) -> None:
    file.write_text("train:\n  epochs: -1\n")
    message = refusal(file)
    assert message.startswith(f"{file}: train.epochs: ")
    assert "greater than 0" in message
    assert "(found -1)" in message


def test_a_value_that_is_not_in_the_list_is_answered_with_the_list() -> None:
    message = refusal(None, "train.tune=some")
    assert "train.tune" in message
    assert "'full', 'last' or 'lora'" in message
    assert "(found 'some')" in message


@pytest.mark.parametrize("override", ["generate.instruction=Say \udce9", 'ingest.languages=[de, "\\ud83d"]'])
def test_a_text_that_cannot_be_encoded_is_named_with_its_key(override: str) -> None:
    message = refusal(None, override)
    assert message.startswith(f"override: {override.partition('=')[0]}: character ")
    assert "cannot be written as UTF-8" in message


def test_an_escape_of_half_a_character_in_a_file_is_named_with_its_key(file: Path) -> None:
    file.write_text('generate:\n  instruction: "Say \\ud83d"\n')
    assert refusal(file).startswith(f"{file}: generate.instruction: character 5 cannot be written as UTF-8")


def test_a_bad_override_is_not_blamed_on_the_file(file: Path) -> None:
    file.write_text("train:\n  epochs: 3\n")
    assert refusal(file, "train.epochs=-1").startswith("override: train.epochs: ")
    assert refusal(file, "ingest.overlap_tokens=150").startswith("override: ingest: ")


def test_a_bad_file_is_not_blamed_on_the_overrides(file: Path) -> None:
    file.write_text("train:\n  epochs: -1\n")
    assert refusal(file, "train.batch_size=2").startswith(f"{file}: train.epochs: ")


def test_an_overlap_above_half_a_passage_is_refused_with_both_numbers() -> None:
    message = refusal(None, "ingest.max_tokens=40", "ingest.overlap_tokens=21")
    assert "overlap_tokens=21" in message
    assert "max_tokens=40" in message


def test_recall_at_rank_zero_is_refused() -> None:
    assert "evaluate.recall_at.0" in refusal(None, "evaluate.recall_at=[0, 5]")


@pytest.mark.parametrize("override", ["train.epochs", "epochs=3", "=3", ""])
def test_an_override_of_another_form_is_answered_with_an_example(override: str) -> None:
    message = refusal(None, override)
    assert repr(override) in message
    assert "for instance train.epochs=3" in message


@pytest.mark.parametrize(
    ("text", "line"), [("train:\n  epochs: 3\n   k: 2\n", 3), ("train: [1, 2\n", 2), ("a: 1\n\tb: 2\n", 2)]
)
def test_broken_yaml_is_named_with_its_line(file: Path, text: str, line: int) -> None:
    file.write_text(text)
    assert refusal(file).startswith(f"{file}:{line}: is not valid YAML")


def test_a_file_that_is_not_utf8_is_named_with_the_byte(file: Path) -> None:
    file.write_bytes("generate:\n  instruction: größer\n".encode("latin-1"))
    assert refusal(file).startswith(f"{file}: is not UTF-8 at byte 27")


def test_a_file_that_cannot_be_read_is_named_with_the_reason(file: Path) -> None:
    assert refusal(file).startswith(f"{file}: cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    ("text", "found"), [("[1]", ": holds a list"), ("train: 3", ":1: section 'train' holds a int")]
)
def test_a_file_without_sections_is_told_what_was_expected(file: Path, text: str, found: str) -> None:
    file.write_text(text)
    message = refusal(file)
    assert message.startswith(f"{file}{found}")
    assert "expected" in message


def test_a_configuration_cannot_be_changed_once_it_is_loaded() -> None:
    config = load_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.train.epochs = 2.0
    with pytest.raises(ValidationError, match="frozen"):
        config.train = DEFAULTS.train


# What is written.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "007",
        "yes",
        "null",
        "a: b # c",
        "query: ",
        " led",
        "a\nb\n\nc",
        "wait...",
        "...",
        "---",
        "'\"",
        "é",
        "[x",
    ],
)
def test_to_yaml_is_read_back_as_the_same_configuration(file: Path, text: str) -> None:
    config = load_config(None, [f"generate.instruction={text}", "evaluate.recall_at=[2,9]", "train.generator_lr=1e-12"])
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file) == config


def test_to_yaml_writes_every_key_with_its_meaning_beside_it() -> None:
    lines = to_yaml(DEFAULTS).splitlines()
    settings = [line for line in lines if line.startswith("  ")]
    assert len(settings) == len(list(known_keys()))
    assert "  epochs: 1.0  # passes over the examples; may be a fraction" in settings


def test_every_field_has_a_description() -> None:
    sections = {name: type(getattr(DEFAULTS, name)).model_fields for name in Config.model_fields}
    assert [name for name, fields in sections.items() if not all(field.description for field in fields.values())] == []


def test_the_schema_is_json_that_knows_every_key_and_refuses_others() -> None:
    schema = json.loads(json.dumps(Config.model_json_schema()))
    sections = {
        name: schema["$defs"][value.get("$ref", value.get("allOf", [{}])[0].get("$ref", "")).rpartition("/")[2]]
        for name, value in schema["properties"].items()
    }
    assert {f"{name}.{key}" for name, section in sections.items() for key in section["properties"]} == set(known_keys())
    assert all(section["additionalProperties"] is False for section in [schema, *sections.values()])


@pytest.mark.parametrize(
    ("command", "override", "said"),
    [
        ("ask", "train.epochs=3", "train.epochs has no effect in `ragray ask`"),
        ("train", "generate.batch_size=2", "generate.batch_size has no effect in `ragray train`"),
        ("evaluate retrieval", "retrieve.k=5", "retrieve.k has no effect in `ragray evaluate retrieval`"),
        ("ingest", "embed.batch_tokens=512", "embed.batch_tokens has no effect in `ragray ingest`"),
        ("train", "embed.model=x", "embed.model has no effect in `ragray train`"),
        ("train", "train.last_layers=3", "only with train.tune=last"),
        (
            "train",
            "train.refresh_steps=9",
            "only with train.passage_encoder=true and train.objective=rag or perplexity",
        ),
        ("train", "train.refresh_wait=true", "only with train.passage_encoder=true and train.refresh_steps above 0"),
        ("search", "retrieve.rrf_k=5", "only with retrieve.mode=hybrid and retrieve.fusion=rrf"),
        ("search", "retrieve.dense_weight=0.5", "only with retrieve.mode=hybrid"),
        ("search", "embed.pooling=cls", "only with embed.model"),
        ("search", "retrieve.num_shards=2", "has no effect in `ragray search`"),
    ],
)
def test_an_override_without_effect_is_said(
    command: str, override: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    load_config(None, [override], command=command)
    assert [said in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("ask", ["generate.passage_temperature=0.5", "retrieve.k=3", "embed.model=x", "embed.pooling=cls"]),
        ("train", ["train.tune=last", "train.last_layers=3", "retrieve.num_shards=2", "generate.instruction=x"]),
        ("train", ["retrieve.k=4", "generate.max_new_tokens=8", "generate.passage_temperature=1"]),
        (
            "train",
            ["train.passage_encoder=true", "train.refresh_steps=9", "train.refresh_cpus=2", "embed.dtype=float32"],
        ),
        ("serve", ["retrieve.num_replicas=2"]),
        ("index build", ["index.seed=3"]),
        ("quickstart", ["train.epochs=3", "serve.port=9000"]),
    ],
)
def test_overrides_with_an_effect_are_not_remarked_on(
    command: str, overrides: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    load_config(None, overrides, command=command)
    assert not caplog.records


def test_every_pattern_of_used_settings_names_some_setting() -> None:
    known = [*known_keys(), "examples.x", "cluster.x"]
    for patterns in USED.values():
        assert [pattern for pattern in patterns if not fnmatch.filter(known, pattern)] == []


@pytest.mark.parametrize(
    "override",
    [
        "train.seed=-1", "index.seed=-1", "index.seed=2147483647", "train.seed=99999999999",
        "embed.gpus_per_worker=1.5", "evaluate.gpus_per_worker=0.00001", "train.gpus_per_worker=-1",
        "train.cpus_per_worker=0", "train.cpus_per_worker=0.00001", "train.num_workers=1000000", "retrieve.threads=100000",
        "train.epochs=inf", "train.generator_lr=nan", "index.memory_gib=inf", "retrieve.k=5000", "cluster.wait_s=-1",
    ],
)  # fmt: skip
def test_a_number_that_could_only_fail_later_is_refused_and_named(override: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(override.partition("=")[0])):
        load_config(None, [override])


@pytest.mark.parametrize(
    "override", ["train.seed=2147483646", "index.seed=0", "embed.gpus_per_worker=0.25", "train.gpus_per_worker=2"]
)
def test_what_every_library_takes_is_allowed(override: str) -> None:
    load_config(None, [override])
