"""Metadata of model cards, and the licenses that these may name."""

import pytest
import yaml

from z1g.core.errors import UserError
from z1g.inference.card import LICENSES, parse_card, require_license
from z1g.networks.weights.packaged import CARD, MODELS, shipped


@pytest.mark.parametrize(
    ("text", "values", "rest"),
    [
        ("# A\nb", {}, "# A\nb"),
        ("---\nlicense: mit\n---\n# A", {"license": "mit"}, "# A"),
        ("---\nlicense: [mit, cc0-1.0]\n---\n# A", {"license": ["mit", "cc0-1.0"]}, "# A"),
        ("\ufeff---\r\nlicense: mit\r\ntags: [a]\r\n---\r\n# A\r\nb", {"license": "mit", "tags": ["a"]}, "# A\nb"),
        ("---\n---\n# A", {}, "# A"),
        ("---\ntext: '---'\n---\n# A\n---\nb", {"text": "---"}, "# A\n---\nb"),
    ],
)
def test_metadata_and_text(text: str, values: dict[str, object], rest: str) -> None:
    assert parse_card(text, "README.md") == (values, rest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "README.md, the model card, is empty; write what the model was trained on"),
        ("---\nlicense: mit\n---\n \n", "README.md, the model card, is empty"),
        ("---\na: [\n---\n# A", "README.md: its metadata is not YAML"),
        ("---\n- a\n---\n# A", "README.md: its metadata is not a mapping"),
        ("---\nlicense: mine\n---\n# A", "'mine' is no license that model cards name"),
        ("---\nlicense: {a: 1}\n---\n# A", "is no license that model cards name"),
        ("---\nlicense: other\n---\n# A", "the license 'other' needs license_name and license_link"),
        ("---\nlicense: other\nlicense_name: Mine\nlicense_link: 3\n---\n# A", "needs license_name and license_link"),
    ],
)
def test_cards_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_card(text, "README.md")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CC-BY-4.0", "cc-by-4.0"),
        ("CC BY SA 3.0", "cc-by-sa-3.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("The MIT License", "mit"),
        ("GPLv3", "gpl-3.0"),
        ("CC0", "cc0-1.0"),
    ],
)
def test_similar_licenses_are_told(name: str, meant: str) -> None:
    with pytest.raises(UserError, match="did you mean") as caught:
        require_license({"license": name}, "--license", "more")
    near = str(caught.value).partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert meant in near
    assert len(near) <= 4


def test_what_is_like_none_is_told_some() -> None:
    with pytest.raises(UserError, match=r"some are apache-2\.0, .*mit, openrail\. All others are 'other' with more$"):
        require_license({"license": "ask Jane in room 3"}, "--license", "more")


def test_known_licenses_are_read_as_texts() -> None:
    """By YAML too, which reads some words as numbers or truth values."""
    for name in (*LICENSES, "other"):
        assert yaml.safe_load(f"license: {name}") == {"license": name}
        assert name == name.lower()
    require_license({}, "here", "more")


@pytest.mark.parametrize("model", shipped())
def test_models_of_the_package_name_their_license(model: str) -> None:
    values, text = parse_card((MODELS / model / CARD).read_text(encoding="utf-8"), model)
    assert values == {"license": "cc-by-sa-3.0"}
    assert "CC-BY-SA 3.0" in text.partition("## License of the weights")[2]
