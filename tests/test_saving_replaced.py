"""A saved file takes the place of another as a whole, whatever fails or comes between."""

import os
import re
import secrets
import stat

import pytest

import fastrnn
from support import assert_same_bits


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    old, new = fastrnn.Linear(3, 2, seed=1), fastrnn.Linear(3, 2, seed=2)
    old.save(tmp_path / "f")

    def full(*_):
        raise OSError(28, "No space left on device")

    def refused(source, target):
        raise OSError(13, "Permission denied", source, None, target)

    def stopped(_):
        raise KeyboardInterrupt

    def gone(_):
        for path in tmp_path.glob("*.tmp"):
            path.unlink()
        full()

    named = re.escape(f"denied: {str(tmp_path / 'f')!r}") + "$"  # the temporary one is no matter
    for name, fail, error, message in (
        ("fsync", full, OSError, "No space"),
        ("fsync", stopped, KeyboardInterrupt, None),
        ("fsync", gone, OSError, "No space"),
        ("replace", full, OSError, "No space"),
        ("replace", refused, PermissionError, named),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(error, match=message):
                new.save(tmp_path / "f")
        assert [p.name for p in tmp_path.iterdir()] == ["f"], "no temporary file stays"
        assert_same_bits(fastrnn.load(tmp_path / "f").state_dict(), old.state_dict())
    with pytest.raises(FileNotFoundError) as caught:
        new.save(tmp_path / "nowhere" / "f")
    assert caught.value.filename == str(tmp_path / "nowhere" / "f"), "the name that was given"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        new.save(tmp_path / "folder")
    assert caught.value.filename == str(tmp_path / "folder") and ".tmp" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "folder"]


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="asks how long a name may be")
def test_a_name_as_long_as_may_be(tmp_path):
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    layer = fastrnn.Linear(3, 2)
    for _ in range(2):  # a new file, then one in its place
        layer.save(tmp_path / ("f" * most))
    assert_same_bits(fastrnn.load(tmp_path / ("f" * most)).state_dict(), layer.state_dict())
    with pytest.raises(OSError, match="too long") as caught:
        layer.save(tmp_path / ("f" * (most + 1)))
    assert caught.value.filename == str(tmp_path / ("f" * (most + 1)))
    assert [p.name for p in tmp_path.iterdir()] == ["f" * most], "no temporary file stays"


def test_the_whole_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """else there may be half a file after a power failure"""
    seen, fsync, replace = [], os.fsync, os.replace

    def synced(number):
        seen.append(os.fstat(number).st_size)
        fsync(number)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: seen.append("replaced") or replace(*names))
    fastrnn.Linear(3, 2).save(tmp_path / "f")
    assert seen == [(tmp_path / "f").stat().st_size, "replaced"]


def test_two_saves_at_once(tmp_path, monkeypatch):
    """into files of their own: the one that ends last is what stays"""
    first, second = fastrnn.Linear(3, 2, seed=1), fastrnn.Linear(3, 2, seed=2)
    fsync, between = os.fsync, iter([second])

    def late(number):
        for module in between:
            module.save(tmp_path / "f")
            assert_same_bits(fastrnn.load(tmp_path / "f").state_dict(), second.state_dict())
        fsync(number)

    monkeypatch.setattr(os, "fsync", late)
    first.save(tmp_path / "f")
    assert_same_bits(fastrnn.load(tmp_path / "f").state_dict(), first.state_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_file_of_somebody_elses_is_not_written_over(tmp_path, monkeypatch):
    """one that has the name of the temporary file already"""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * size)
    fastrnn.Linear(1, 1).save(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()
    (tmp_path / "fastrnn-00000000.tmp").write_bytes(b"theirs")
    with pytest.raises(FileExistsError) as caught:
        fastrnn.Linear(2, 2).save(tmp_path / "f")
    assert caught.value.filename == str(tmp_path / "f"), "the name that was given"
    assert (tmp_path / "fastrnn-00000000.tmp").read_bytes() == b"theirs"
    assert (tmp_path / "f").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files have no such modes")
def test_nobody_else_reads_a_private_file_while_it_is_replaced(tmp_path, monkeypatch):
    path, before, change = tmp_path / "f", [], os.chmod
    fastrnn.Linear(1, 1).save(path)
    change(path, 0o600)

    def watched(name, mode):
        before.append(stat.S_IMODE(os.stat(name).st_mode))
        change(name, mode)

    monkeypatch.setattr(os, "chmod", watched)
    fastrnn.Linear(2, 2).save(path)
    assert before == [0o600] and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_system_without_modes(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    fastrnn.Linear(1, 1).save(tmp_path / "f")
    monkeypatch.setattr(os, "chmod", refuse)
    layer = fastrnn.Linear(2, 2)
    layer.save(tmp_path / "f")
    assert_same_bits(fastrnn.load(tmp_path / "f").state_dict(), layer.state_dict())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_only_files_are_replaced(tmp_path):
    """nor a device, such as /dev/null"""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "here").symlink_to("there")
    (tmp_path / "there").symlink_to("here")
    (tmp_path / "folder").mkdir()
    before = sorted((p.name, p.lstat().st_mode) for p in tmp_path.iterdir())
    for name in ("pipe", "link", "here", "folder"):
        error = IsADirectoryError if name == "folder" else FileExistsError
        with pytest.raises(error, match="expected the name of a file.*" + str(tmp_path)):
            fastrnn.Linear(1, 1).save(tmp_path / name)
    assert sorted((p.name, p.lstat().st_mode) for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("end", ["", ".", ".."])
def test_the_name_of_a_folder_is_none_of_a_file(tmp_path, end):
    """nor would one be made that is named as the folder that is not there"""
    path = os.path.join(tmp_path, "folder", end)
    for use in (fastrnn.Linear(1, 1).save, fastrnn.load):
        with pytest.raises(ValueError, match="^path: expected the name of a file, got '"):
            use(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_links_and_modes(tmp_path):
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fastrnn.Linear(1, 1).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").stat().st_size
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o666 & ~mask
    (tmp_path / "real").chmod(0o600)
    fastrnn.Linear(1, 1).save(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o600, "nobody else may read it now"
    fastrnn.Linear(1, 1).save(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~mask
