"""All lists of stages have the same stages."""

import importlib
import re

from support.paths import ROOT

from z1g.cli.main import VERBS
from z1g.config.resolve import resolve, scale_file
from z1g.config.sections import Resources
from z1g.config.yaml_file import read_yaml
from z1g.core.stages import CHAIN, CHUNKED, STAGE_NAMES, TRAINED
from z1g.plan.cost import costs
from z1g.plan.stages import STAGES

ORDER = ["ingest", "fit", "autodecoder", "codes", "unet", "infer", "metrics"]


def test_lists_of_stages_agree() -> None:
    assert list(STAGE_NAMES) == ORDER
    assert list(STAGES) == ORDER
    assert list(VERBS)[: len(ORDER)] == ORDER
    assert list(Resources.model_fields) == ORDER
    full = resolve([read_yaml(scale_file("full", ROOT / "configs"))])
    assert [cost.stage for cost in costs(full, 1000)] == ORDER
    assert all(importlib.import_module(f"z1g.stages.{name}").run for name in ORDER)


def test_stages_come_after_their_upstream_stages() -> None:
    for stage in CHAIN:
        assert list(stage.upstream) == [name for name in ORDER if name in stage.upstream], "in order, without unknown names"
        assert stage.name not in stage.upstream
        for other in CHAIN:
            if other.name in stage.upstream:
                assert ORDER.index(other.name) < ORDER.index(stage.name)
                assert set(other.upstream) <= set(stage.upstream), "including indirect ones"


def test_rules_match_the_list() -> None:
    text = "\n".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(ORDER) <= set(rules)
    assert {name for name in ORDER if "{wildcards.chunk}" in rules[name]} == set(CHUNKED)
    assert {name for name in ORDER if "history.jsonl" in rules[name]} == set(TRAINED)
    assert {name for name in ORDER if "nodes" in type(getattr(Resources(), name)).model_fields} == set(TRAINED)
    for stage in CHAIN:
        assert stage.last in re.findall(rf'out\("{stage.name}", "([^"]+)"\)', rules[stage.name].split("    log:")[0])
        assert set(re.findall(r'(?:needs|same_chunk)\("\w+", "(\w+)"', rules[stage.name])) <= set(stage.upstream)
