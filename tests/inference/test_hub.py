"""`z1g publish` and models of the hub, with a stand-in hub on loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from support import trained_models
from support.builders import experiment
from support.hub import Hub, hub
from support.photographs import disc, saved

from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.inference.method import ImageToSplats
from z1g.inference.models import open_model
from z1g.networks.weights.hub import HubName

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return trained_models.write(experiment(root), root / "chairs", card="---\nlicense: cc0-1.0\n---\n# Chairs\nSome.")


@pytest.fixture
def at_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "a-made-up-token")
    with hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def publish(folder: Path, *words: str) -> int:
    return main(["publish", str(folder), "--to", "someone/chairs", *words])


def test_a_model_travels_by_the_hub(
    at_hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(folder) == 0
    name = capsys.readouterr().out.partition(":")[0]
    commit, files = at_hub.repositories["someone/chairs"][-1]
    assert name == f"someone/chairs@{commit}"
    assert {"README.md", "model.json", "pipeline/stage1.json", "pipeline/heads.safetensors"} <= files.keys()
    assert files["pipeline/heads.safetensors"] == (folder / "pipeline/heads.safetensors").read_bytes()
    fetched, local = (ImageToSplats.from_pretrained(x) for x in ("someone/chairs", str(folder)))
    assert fetched.model is not None
    assert fetched.model.name == name
    assert torch.equal(fetched.reconstruct(disc(), seed=1).tensor, local.reconstruct(disc(), seed=1).tensor)
    photograph = str(saved(tmp_path, disc()))
    assert main(["infer", photograph, "--model", "someone/chairs", "--out", str(tmp_path / "o"), "--size", "32"]) == 0
    assert json.loads((tmp_path / "o/a.json").read_text())["model"] == name
    # What has been fetched is there without the hub.
    at_hub.repositories.clear()
    assert open_model(name).name == name


def test_a_revision_is_what_it_was(at_hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert publish(folder) == 0
    (first, _), *_ = at_hub.repositories["someone/chairs"]
    other = trained_models.write(experiment(tmp_path), tmp_path / "other", seed=6)
    assert publish(other) == 0
    assert len(at_hub.repositories["someone/chairs"]) == 2
    newest, old = (
        ImageToSplats.from_pretrained("someone/chairs", revision=revision).reconstruct(disc(), seed=1).tensor
        for revision in (None, first)
    )
    expected = ImageToSplats.from_pretrained(str(folder)).reconstruct(disc(), seed=1).tensor
    assert torch.equal(old, expected)
    assert not torch.equal(newest, expected)
    with pytest.raises(UserError, match=r"someone/chairs@no-such-branch is no folder here.*Revision Not Found"):
        ImageToSplats.from_pretrained("someone/chairs", revision="no-such-branch")


def test_earlier_files_go_and_pictures_come(at_hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert publish(folder, "--picture", *[str(saved(tmp_path, disc(), f"{i}.png")) for i in "xy"]) == 0
    files = at_hub.repositories["someone/chairs"][-1][1]
    assert {"pictures/1.png", "pictures/2.png"} <= files.keys()
    assert b"](pictures/2.png)" in files["README.md"]
    files["pipeline/old.safetensors"] = b"of an earlier model"
    assert publish(folder) == 0
    newest = at_hub.repositories["someone/chairs"][-1][1]
    assert not [name for name in newest if "old" in name or name.startswith("pictures/")]


@pytest.mark.parametrize("name", ["pipeline/heads.safetensors", "pipeline/stage1.json", "model.json"])
@pytest.mark.parametrize("how", ["bit", "swap"])
def test_downloads_are_checked_against_the_digests(
    at_hub: Hub, folder: Path, tmp_path: Path, name: str, how: str
) -> None:
    """A bit changes, or the file is a whole one of another model."""
    other = trained_models.write(experiment(tmp_path), tmp_path / "other", seed=6)
    assert main(["publish", str(other), "--to", "someone/other"]) == 0
    assert publish(folder) == 0
    files = at_hub.repositories["someone/chairs"][-1][1]
    middle = len(files[name]) // 2
    changed = files[name][:middle] + bytes([files[name][middle] ^ 1]) + files[name][middle + 1 :]
    files[name] = changed if how == "bit" else at_hub.repositories["someone/other"][-1][1][name]
    with pytest.raises(UserError, match=r"is damaged|checksum|cannot be used|digest"):
        ImageToSplats.from_pretrained("someone/chairs")


def test_a_dry_run_writes_the_folder_and_asks_nobody(
    at_hub: Hub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    picture = saved(tmp_path, disc())
    words = ["--dry-run", str(tmp_path / "dry"), "--license", "cc-by-4.0", "--picture", str(picture)]
    assert publish(folder, *words) == 0
    assert "the card's own license, cc0-1.0, stays; --license cc-by-4.0 is not used" in caplog.text
    assert at_hub.asked == []
    dry = tmp_path / "dry"
    block, _, text = (dry / "README.md").read_text()[4:].partition("\n---\n")
    metadata = yaml.safe_load(block)
    assert metadata["license"] == "cc0-1.0", "the card's own metadata stays"
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("z1g", "image-to-3d")
    assert text.startswith("# Chairs")
    assert "from_pretrained('someone/chairs')" in text
    assert (dry / "pictures/1.png").read_bytes() == picture.read_bytes()
    ImageToSplats.from_pretrained(str(dry))
    assert publish(folder, "--dry-run", str(dry)) == 2
    assert "exists already" in capsys.readouterr().err


def test_without_metadata_the_card_gets_a_license(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "plain")
    (tmp_path / "plain/README.md").write_bytes(b"\xef\xbb\xbf# Chairs\r\nSome.\r\n")
    words = ["--dry-run", str(tmp_path / "dry"), "--license", "mit"]
    assert main(["publish", str(tmp_path / "plain"), "--to", "a/b", *words]) == 0
    text = (tmp_path / "dry/README.md").read_text()
    assert text.startswith("---\nlicense: mit\n")
    assert "---\n# Chairs\nSome.\n" in text


def test_a_published_model_says_once_how_to_use_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "plain")
    (tmp_path / "plain/README.md").write_text("---\nlicense: mit\n---\n# Chairs\nSome.\n")
    words = ["--to", "a/first", "--dry-run", str(tmp_path / "first")]
    assert main(["publish", str(tmp_path / "plain"), *words]) == 0
    card = tmp_path / "first/README.md"
    card.write_text(card.read_text() + "\n## Thanks\nTo all.\n")
    assert main(["publish", str(tmp_path / "first"), "--to", "b/second", "--dry-run", str(tmp_path / "second")]) == 0
    text = (tmp_path / "second/README.md").read_text()
    assert text.count("## Use") == text.count("ImageToSplats.from_pretrained('b/second')") == 1
    assert "first" not in text
    assert "# Chairs\nSome.\n\n## Thanks\nTo all.\n" in text


def test_another_license_has_a_name_and_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "plain")
    (tmp_path / "plain/README.md").write_text("# Chairs")
    terms = {"license": "other", "license_name": "Chairs 1.0", "license_link": "https://example.org/terms"}
    words = [word for key, value in terms.items() for word in (f"--{key.replace('_', '-')}", value)]
    publish = ["publish", str(tmp_path / "plain"), "--to", "a/b", "--dry-run", str(tmp_path / "dry")]
    assert main([*publish, *words]) == 0
    metadata = yaml.safe_load((tmp_path / "dry/README.md").read_text()[4:].partition("\n---\n")[0])
    assert terms.items() <= metadata.items()


def test_without_a_license_this_is_said(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(folder, tmp_path / "plain")
    (tmp_path / "plain/README.md").write_text("# Chairs")
    assert main(["publish", str(tmp_path / "plain"), "--to", "a/b", "--dry-run", str(tmp_path / "dry")]) == 0
    assert "the card names no license" in caplog.text


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "README.md, the model card, cannot be read: No such file or directory; write one that says what"),
        (b"---\nlicense: mit\n---\n\n", "README.md, the model card, is empty; write what the model was trained on"),
        (b"\xff\xfe# Chairs", "README.md, the model card, cannot be read: 'utf-8' codec"),
        (
            b"---\nlicense: Apache 2\n---\n# A",
            "README.md: 'Apache 2' is no license that model cards name; did you",
        ),
    ],
)
def test_a_model_without_a_card_is_not_published(
    at_hub: Hub, folder: Path, tmp_path: Path, card: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "plain")
    (tmp_path / "plain/README.md").unlink()
    if card is not None:
        (tmp_path / "plain/README.md").write_bytes(card)
    for words in (["--dry-run", str(tmp_path / "dry")], []):
        assert main(["publish", str(tmp_path / "plain"), "--to", "a/b", "--license", "mit", *words]) == 2
        assert message in capsys.readouterr().err
    assert at_hub.asked == []
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}", "--to", "nobody"], "--to nobody: a name on the hub is USER/NAME"),
        (["{model}", "--to", "a/b@c"], "a name on the hub is USER/NAME"),
        (["nowhere", "--to", "a/b"], "nowhere is neither a folder with model.json"),
        (["{model}", "--to", "a/b", "--picture", "{model}/model.json"], "model.json is not an image of a"),
        (
            ["{model}", "--to", "a/b", "--license", "cc-by-4"],
            "--license: 'cc-by-4' is no license that model cards",
        ),
        (["{model}", "--to", "a/b", "--license", "other"], "'other' needs --license-name NAME and --license-link URL"),
        (["{model}", "--to", "a/b", "--license-name", "Mine"], "are of --license other only"),
        (["{model}", "--to", "a/b", "--picture", "none.png"], "none.png cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_said_before_anything_is_sent(
    at_hub: Hub, folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", *(word.format(model=folder) for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert at_hub.asked == []


def test_what_the_hub_does_not_have_is_one_line(
    at_hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = str(saved(tmp_path, disc()))
    assert main(["infer", photograph, "--model", "someone/nothing", "--out", str(tmp_path / "o")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "someone/nothing is no folder here, and the hub says" in last


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b", HubName("a/b")),
        ("a/b@v1.0", HubName("a/b", "v1.0")),
        ("A-1/b.c@refs/pr/1", HubName("A-1/b.c", "refs/pr/1")),
        *((text, None) for text in ("base", "./a", "../a", "/a/b", "a/b/c", "a/..", "a/b@", "~/a", "a/b@../x", "é/a")),
    ],
)
def test_names_of_the_hub(text: str, name: HubName | None) -> None:
    assert HubName.parse(text) == name
