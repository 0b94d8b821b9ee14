"""How many copies of a deployment run: as many as are set, or between bounds, as Serve reads them."""

import pytest
from ray.serve.config import AutoscalingConfig

from ragray.cluster.serving.commands import deployment_wants
from ragray.cluster.serving.scaling import copies, generator_copies, retriever_copies
from ragray.config import load_config
from ragray.errors import ConfigError


def test_by_default_the_number_is_fixed() -> None:
    config = load_config(None, ["retrieve.num_replicas=3", "serve.generator_replicas=2"])
    assert copies(retriever_copies(config), config.serve) == {"num_replicas": 3}
    assert copies(generator_copies(config), config.serve) == {"num_replicas": 2}


def test_a_largest_number_lets_serve_choose_between_it_and_the_least() -> None:
    settings = ["serve.retriever_max_replicas=4", "serve.generator_replicas=0", "serve.generator_max_replicas=2"]
    config = load_config(None, [*settings, "generate.batch_size=5", "serve.upscale_delay_s=1"])
    found = [
        AutoscalingConfig(**copies(wanted, config.serve)["autoscaling_config"])
        for wanted in (retriever_copies(config), generator_copies(config))
    ]
    assert [(each.min_replicas, each.max_replicas) for each in found] == [(1, 4), (0, 2)]
    assert [each.target_ongoing_requests for each in found] == [1.5, 5]
    assert {(each.upscale_delay_s, each.downscale_delay_s, each.look_back_period_s) for each in found} == {(1, 120, 12)}


def test_only_the_least_copies_need_room_before_a_service_starts() -> None:
    config = load_config(None, ["serve.retriever_max_replicas=4", "serve.generator_max_replicas=9"])
    wants = {want.what: (want.needed, want.count) for want in deployment_wants(config)}
    assert wants == {"Gateway": (1, 1), "Retriever": (1, 4), "Generator": (1, 9)}


def test_a_retriever_in_the_gateway_needs_no_process_of_its_own() -> None:
    config = load_config(None, ["serve.retriever=gateway", "serve.retriever_gpus=1"])
    wants = {want.what: (want.cpus, want.gpus) for want in deployment_wants(config)}
    assert wants == {"Gateway": (0.1, 1), "Generator": (1, 0)}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["serve.generator_replicas=0"], "generator_replicas=0 lets none run at all"),
        (["serve.retriever=gateway", "serve.retriever_max_replicas=2"], "no effect with retriever=gateway"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_config(None, settings)
