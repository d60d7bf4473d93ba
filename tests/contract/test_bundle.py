import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from contract.attributes import Attributes
from contract.bundle import ARRAYS, Bundle, open_bundle, write_bundle
from contract.errors import BundleError
from contract.features import Fields, Schema
from contract.manifest import FORMAT, Dims, Index, Manifest
from contract.store import LocalStore
from tests.conftest import live


def tiny_manifest(version: str) -> Manifest:
    return Manifest(
        format=FORMAT,
        version=version,
        created_at="2024-01-01T00:00:00+00:00",
        model="none",
        recipe={},
        dims=Dims(
            items=1, users=1, dim=1, interests=1, history=1, item_identity=0, user_identity=0
        ),
        index=Index(backend="exact"),
        features=Schema(users=Fields(), items=Fields(), history_length=1),
        attributes=Attributes(),
        files={},
        metrics={},
        gate=(),
    )


def edit_manifest(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    rewrite(path, json.dumps(document).encode())


def rewrite(path: Path, content: bytes) -> None:
    """Files of a bundle are read-only."""
    path.unlink()
    path.write_bytes(content)


def replace(bundle: Path, name: str, content: bytes) -> None:
    """A file and what the manifest says of it, so that only its content can be wrong."""
    rewrite(bundle / name, content)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_manifest(bundle, lambda document: document["files"].update({name: entry}))


def npy(array: npt.NDArray[Any], path: Path) -> bytes:
    np.save(path / "array.npy", array, allow_pickle=True)
    return (path / "array.npy").read_bytes()


@pytest.fixture
def damaged(store: LocalStore) -> Path:
    """A sound bundle, to be damaged."""
    open_bundle(live(store))
    return live(store)


def test_a_bundle_comes_back_as_it_was_written(bundle: Bundle) -> None:
    assert bundle.arrays.keys() == ARRAYS.keys()
    assert bundle.version == bundle.path.name == bundle.manifest.version
    dims = bundle.manifest.dims
    assert len(bundle.item_ids) == dims.items == 210
    assert len(bundle.user_ids) == dims.users == 300
    assert len(bundle.attributes) == 210
    assert bundle.item_vectors.shape == (210, 16)
    assert bundle.history_vectors.shape == (210, 12)
    assert bundle.items.codes.shape == (210, bundle.manifest.features.items.code_width)
    assert bundle.users.numbers.shape == (300, bundle.manifest.features.users.number_width)
    assert bundle.item_identity.shape == (211, 16)
    assert bundle.user_identity.shape == (301, 8)


def test_every_array_is_a_memory_map_that_cannot_be_written(bundle: Bundle) -> None:
    for name, array in bundle.arrays.items():
        base: Any = array
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap), name
        assert not array.flags.writeable, name
    with pytest.raises(ValueError, match="read-only"):
        bundle.item_vectors[0, 0] = 1.0


def test_the_files_of_a_bundle_cannot_be_written(bundle: Bundle) -> None:
    modes = {p.name: p.stat().st_mode & 0o777 for p in bundle.path.iterdir()}

    assert modes == dict.fromkeys([*bundle.manifest.files, "manifest.json"], 0o444)


def damage_size(bundle: Path) -> tuple[str, ...]:
    path = bundle / "item_vectors.npy"
    size = path.stat().st_size
    rewrite(path, path.read_bytes()[:-5])
    return ("item_vectors.npy", f"{size - 5:,} bytes", f"{size:,}")


def damage_bit(bundle: Path) -> tuple[str, ...]:
    path = bundle / "item_vectors.npy"
    content = bytearray(path.read_bytes())
    before = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    rewrite(path, bytes(content))
    after = hashlib.sha256(content).hexdigest()
    return ("item_vectors.npy", f"sha256 {after[:12]}", f"the manifest says {before[:12]}")


def damage_missing(bundle: Path) -> tuple[str, ...]:
    (bundle / "user_tower.onnx").unlink()
    return ("user_tower.onnx: missing", "the manifest lists it")


def damage_dimension(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["dims"].update(dim=32))
    return ("item_vectors.npy", "float32 (210, 16)", "the manifest says float32 (210, 32)")


def damage_count(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["dims"].update(users=301))
    return ("user_codes.npy", "(300, 1)", "(301, 1)")


def damage_newer(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d.update(format=FORMAT + 1, invented=True))
    return (f"bundle format {FORMAT + 1}", f"reads format {FORMAT}", "upgrade the service")


def damage_older(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d.update(format=FORMAT - 1))
    upgrade = "publish the run again: tandem publish RUN --to STORE"
    return (f"bundle format {FORMAT - 1}", f"reads format {FORMAT}", upgrade)


def damage_json(bundle: Path) -> tuple[str, ...]:
    rewrite(bundle / "manifest.json", b'{"format": 1,')
    return ("manifest.json: document: Invalid JSON", "publish the run again")


def damage_bytes(bundle: Path) -> tuple[str, ...]:
    rewrite(bundle / "manifest.json", b"\xff\xfe\x00")
    return ("manifest.json: document: Invalid JSON",)


def damage_no_manifest(bundle: Path) -> tuple[str, ...]:
    (bundle / "manifest.json").unlink()
    return ("manifest.json: cannot be read (No such file or directory)", "publish again")


def damage_key(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["dims"].update(height=3))
    return ("manifest.json: dims.height: Extra inputs are not permitted",)


def damage_no_key(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d.pop("dims"))
    return ("manifest.json: dims: Field required",)


def damage_slash(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["files"].update({"../secret": d["files"]["golden.json"]}))
    return ("file name '../secret' in the manifest", "expected a plain name")


def damage_absolute(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["files"].update({"/etc/passwd": d["files"]["golden.json"]}))
    return ("file name '/etc/passwd' in the manifest",)


def damage_dots(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["files"].update({"..": d["files"]["golden.json"]}))
    return ("file name '..' in the manifest",)


def damage_zero(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["files"].update({"a\0b": d["files"]["golden.json"]}))
    return (r"file name 'a\x00b' in the manifest",)


def damage_link(bundle: Path) -> tuple[str, ...]:
    path = bundle / "golden.json"
    path.rename(bundle.parent / "elsewhere.json")
    path.symlink_to(bundle.parent / "elsewhere.json")
    return ("golden.json: not a plain file",)


def damage_pipe(bundle: Path) -> tuple[str, ...]:
    (bundle / "golden.json").unlink()
    os.mkfifo(bundle / "golden.json")
    return ("golden.json: not a plain file",)


def damage_listed(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["files"].pop("popularity.npy"))
    return ("the manifest lists no popularity.npy", "publish the run again")


def damage_dtype(bundle: Path) -> tuple[str, ...]:
    doubles = np.load(bundle / "popularity.npy").astype(np.float64)
    replace(bundle, "popularity.npy", npy(doubles, bundle.parent))
    return ("popularity.npy", "float64 (210,)", "the manifest says float32 (210,)")


def damage_byte_order(bundle: Path) -> tuple[str, ...]:
    swapped = np.load(bundle / "popularity.npy").astype(">f4")
    replace(bundle, "popularity.npy", npy(swapped, bundle.parent))
    return ("popularity.npy", ">f4 (210,)", "the manifest says float32 (210,)")


def damage_shape(bundle: Path) -> tuple[str, ...]:
    column = np.load(bundle / "popularity.npy").reshape(-1, 1)
    replace(bundle, "popularity.npy", npy(column, bundle.parent))
    return ("popularity.npy", "float32 (210, 1)", "the manifest says float32 (210,)")


def damage_pickle(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "popularity.npy", npy(np.array([{}] * 210), bundle.parent))
    return ("popularity.npy: not a .npy array", "publish again")


def damage_archive(bundle: Path) -> tuple[str, ...]:
    np.savez(bundle.parent / "array.npz", popularity=np.load(bundle / "popularity.npy"))
    replace(bundle, "popularity.npy", (bundle.parent / "array.npz").read_bytes())
    return ("popularity.npy: not a .npy array",)


def damage_empty(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "popularity.npy", b"")
    return ("popularity.npy: not a .npy array",)


def damage_short_data(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "popularity.npy", (bundle / "popularity.npy").read_bytes()[:-4])
    return ("popularity.npy: not a .npy array",)


def change(bundle: Path, name: str, edit: Callable[[npt.NDArray[Any]], object]) -> None:
    """An array, edited in place, and the manifest to suit."""
    array = np.load(bundle / f"{name}.npy")
    edit(array)
    replace(bundle, f"{name}.npy", npy(array, bundle.parent))


def put(position: Any, value: Any) -> Callable[[npt.NDArray[Any]], None]:
    def edit(array: npt.NDArray[Any]) -> None:
        array[position] = value

    return edit


def damage_manifest_link(bundle: Path) -> tuple[str, ...]:
    path = bundle / "manifest.json"
    path.rename(bundle.parent / "elsewhere.json")
    path.symlink_to(bundle.parent / "elsewhere.json")
    return ("manifest.json: cannot be read (Too many levels of symbolic links)",)


def damage_manifest_pipe(bundle: Path) -> tuple[str, ...]:
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")
    return ("manifest.json: cannot be read (not a plain file)",)


def damage_manifest_large(bundle: Path) -> tuple[str, ...]:
    rewrite(bundle / "manifest.json", b"")
    os.truncate(bundle / "manifest.json", 2**40)
    return ("manifest.json: cannot be read (1,099,511,627,776 bytes, expected at most",)


def damage_nan(bundle: Path) -> tuple[str, ...]:
    change(bundle, "item_vectors", put((7, 3), np.nan))
    return ("item_vectors.npy: holds NaN or infinity, expected finite numbers",)


def damage_infinity(bundle: Path) -> tuple[str, ...]:
    change(bundle, "user_identity", put((0, 0), -np.inf))
    return ("user_identity.npy: holds NaN or infinity",)


def damage_offsets_descend(bundle: Path) -> tuple[str, ...]:
    change(bundle, "attributes_offsets", put(5, 10**12))
    return ("attributes_offsets.npy: descends, expected ascending numbers",)


def damage_offsets_end(bundle: Path) -> tuple[str, ...]:
    change(bundle, "user_items_offsets", put(-1, 10**9))
    return ("user_items_offsets.npy: goes from 0 to 1000000000, expected 0 to",)


def damage_offsets_begin(bundle: Path) -> tuple[str, ...]:
    change(bundle, "tagged_offsets", put(0, -8))
    return ("tagged_offsets.npy: goes from -8 to",)


def damage_hashes(bundle: Path) -> tuple[str, ...]:
    change(bundle, "item_ids_hashes", put(-1, 0))
    return ("item_ids_hashes.npy: descends",)


def damage_rows_beyond(bundle: Path) -> tuple[str, ...]:
    change(bundle, "user_items_rows", put(11, 210))
    return ("user_items_rows.npy: holds 210, expected 0 to 209",)


def damage_rows_negative(bundle: Path) -> tuple[str, ...]:
    change(bundle, "popular_rows", put((0, 0), -1))
    return ("popular_rows.npy: holds -1, expected 0 to 209",)


def damage_rows_twice(bundle: Path) -> tuple[str, ...]:
    change(bundle, "user_ids_rows", lambda rows: rows.__setitem__(0, rows[1]))
    return ("user_ids_rows.npy: lacks row", "expected each row once")


def damage_order(bundle: Path) -> tuple[str, ...]:
    change(bundle, "number_order", put((0, slice(None)), 0))
    return ("number_order.npy: lacks row 1, expected each row once",)


def damage_code(bundle: Path) -> tuple[str, ...]:
    change(bundle, "item_codes", put((0, -1), 2**30))
    return ("item_codes.npy: holds 1073741824, expected 0 to",)


def damage_state(bundle: Path) -> tuple[str, ...]:
    change(bundle, "item_states", put(0, 9))
    return ("item_states.npy: holds 9, expected 0 to 2",)


def damage_flags(bundle: Path) -> tuple[str, ...]:
    change(bundle, "user_items_flags", put(0, 64))
    return ("user_items_flags.npy: holds 64, expected 0 to 3",)


def damage_length(bundle: Path) -> tuple[str, ...]:
    short = np.load(bundle / "user_items_times.npy")[:-1]
    replace(bundle, "user_items_times.npy", npy(short, bundle.parent))
    return ("user_items_times.npy: has", "as user_items_rows")


def damage_popularity(bundle: Path) -> tuple[str, ...]:
    change(bundle, "popularity", put(3, -1.0))
    return ("popularity.npy: holds -1.0, expected 0 or more",)


def damage_text(bundle: Path) -> tuple[str, ...]:
    change(bundle, "attributes_text", put(100, 0xFF))
    return ("attributes_text.npy: is not UTF-8 (invalid start byte)",)


def damage_letter(bundle: Path) -> tuple[str, ...]:
    first = int(np.load(bundle / "item_ids_offsets.npy")[1])
    change(bundle, "item_ids_text", put(slice(first - 1, first + 1), (0xC3, 0xA9)))
    return ("item_ids_offsets.npy: leads into the middle of a letter",)


def damage_history_length(bundle: Path) -> tuple[str, ...]:
    edit_manifest(bundle, lambda d: d["features"].update(history_length=10**9))
    return ("manifest.json: features.history_length: Input should be less than or equal to 10000",)


def damage_golden_json(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "golden.json", b"[")
    return ("golden.json: document: Invalid JSON",)


def damage_golden_none(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "golden.json", b"[]")
    return ("golden.json: document: Tuple should have at least 1 item",)


def damage_golden_user(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "golden.json", b'[{"user_id": "nobody", "rows": [[0]], "scores": [[1.0]]}]')
    return ("golden.json: user 'nobody' is not in the bundle",)


def damage_golden_interests(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "golden.json", b'[{"user_id": "u0", "rows": [[0]], "scores": [[1], [1]]}]')
    return ("golden.json: user 'u0': expected rows and scores of 1 x 1 to 210",)


def damage_tower_empty(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "item_tower.onnx", b"")
    return ("item_tower.onnx: not an ONNX model: it has no graph",)


def damage_tower_text(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "item_tower.onnx", b"not a tower")
    return ("item_tower.onnx: not an ONNX model",)


def damage_tower_cut(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "user_tower.onnx", (bundle / "user_tower.onnx").read_bytes()[:-9])
    return ("user_tower.onnx: not an ONNX model: it ends within a field",)


def change_tower(bundle: Path, name: str, edit: Callable[[Any], object]) -> None:
    model = onnx.load(bundle / name)
    edit(model)
    replace(bundle, name, model.SerializeToString())


def damage_tower_outside(bundle: Path) -> tuple[str, ...]:
    def edit(model: Any) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../../../etc/passwd")

    change_tower(bundle, "user_tower.onnx", edit)
    return ("user_tower.onnx: the tower has weights outside of the file (external data)",)


def damage_tower_outside_nested(bundle: Path) -> tuple[str, ...]:
    """In an attribute of a node of a graph in an attribute."""

    def edit(model: Any) -> None:
        inner = onnx.GraphProto(name="inner")
        constant = inner.node.add(op_type="Constant").attribute.add(name="value")
        constant.t.external_data.add(key="location", value="weights.bin")
        model.graph.node.add(op_type="If").attribute.add(name="then_branch").g.CopyFrom(inner)

    change_tower(bundle, "item_tower.onnx", edit)
    return ("item_tower.onnx: the tower has weights outside of the file",)


def damage_tower_domain(bundle: Path) -> tuple[str, ...]:
    change_tower(
        bundle, "user_tower.onnx", lambda m: m.opset_import.add(domain="com.microsoft", version=1)
    )
    return ("user_tower.onnx: the tower uses operators of domain 'com.microsoft'",)


def damage_tower_operator(bundle: Path) -> tuple[str, ...]:
    change_tower(
        bundle, "user_tower.onnx", lambda m: m.graph.node.add(op_type="Run", domain="my\nown")
    )
    return (r"user_tower.onnx: the tower uses operators of domain 'my\nown'; expected ONNX's own",)


def damage_tower_function(bundle: Path) -> tuple[str, ...]:
    change_tower(bundle, "item_tower.onnx", lambda m: m.functions.add(name="f", domain=""))
    return ("item_tower.onnx: the tower has functions or a training graph",)


def damage_tower_loop(bundle: Path) -> tuple[str, ...]:
    change_tower(bundle, "item_tower.onnx", lambda m: m.graph.node.add(op_type="Loop"))
    return ("item_tower.onnx: the tower has the operator 'Loop', which may go on for ever",)


def damage_tower_deep(bundle: Path) -> tuple[str, ...]:
    replace(bundle, "user_tower.onnx", framed(7, nested(200)))
    return ("user_tower.onnx: not an ONNX model: messages in messages, over 32 deep",)


def framed(number: int, content: bytes) -> bytes:
    """A field that holds a message."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + content


def nested(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(levels):
        graph = framed(1, framed(5, framed(6, graph)))
    return graph


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__[7:])
def test_a_bad_bundle_is_refused_and_the_message_says_what_is_wrong(
    damaged: Path, damage: Callable[[Path], tuple[str, ...]]
) -> None:
    words = damage(damaged)

    with pytest.raises(BundleError) as caught:
        assert open_bundle(damaged).golden

    message = str(caught.value)
    assert [word for word in (str(damaged), *words) if word not in message] == []
    assert "\n" not in message


def test_a_renamed_bundle_is_refused(damaged: Path) -> None:
    renamed = damaged.rename(damaged.with_name("other"))

    with pytest.raises(BundleError, match=f"other: the manifest is of version '{damaged.name}'"):
        open_bundle(renamed)


def test_files_that_the_manifest_does_not_list_are_no_part_of_the_bundle(damaged: Path) -> None:
    (damaged / "note.txt").write_text("left here by someone")

    assert "note.txt" not in open_bundle(damaged).manifest.files


def test_a_bundle_can_be_copied_to_another_store(store: LocalStore, tmp_path: Path) -> None:
    copy = tmp_path / "bundles" / live(store).name
    shutil.copytree(live(store), copy)

    np.testing.assert_array_equal(
        open_bundle(copy).item_vectors, open_bundle(live(store)).item_vectors
    )


def test_what_fills_a_bundle_may_fail_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(directory: Path) -> Manifest:
        (directory / "half.bin").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_bundle(tmp_path / "bundles" / "v1", fill)

    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_process_that_dies_while_it_fills_a_bundle_leaves_nothing_visible(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from contract.store import LocalStore\n"
        "def fill(directory, version):\n"
        "    (directory / 'half.bin').write_bytes(b'half'); os._exit(9)\n"
        "LocalStore(Path(sys.argv[1])).add(fill)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert done.returncode == 9
    assert [p.name for p in (tmp_path / "bundles").glob("*/half.bin")] == ["half.bin"]
    assert LocalStore(tmp_path).versions() == []


def test_files_are_on_disk_before_the_manifest_and_the_manifest_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    destination = tmp_path / "bundles" / "v1"
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, destination.exists()))

    def fill(directory: Path) -> Manifest:
        (directory / "a.bin").write_bytes(b"a")
        (directory / "b.bin").write_bytes(b"bb")
        return tiny_manifest("v1")

    monkeypatch.setattr(os, "fsync", watched)
    manifest = write_bundle(destination, fill)

    names = {p.stat().st_ino: p.name for p in (destination.parent, *destination.rglob("*"))}
    names[destination.stat().st_ino] = "v1"
    assert [(names[inode], visible) for inode, visible in synced] == [
        ("a.bin", False),
        ("b.bin", False),
        ("manifest.json", False),
        ("v1", False),
        ("bundles", True),
    ]
    assert {name: entry.size for name, entry in manifest.files.items()} == {"a.bin": 1, "b.bin": 2}


def test_a_bundle_is_never_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()

    with pytest.raises(BundleError, match="v1: exists already; a bundle is never written in place"):
        write_bundle(tmp_path / "v1", lambda directory: tiny_manifest("v1"))
