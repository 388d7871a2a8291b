"""A signature says who packed a bundle, and is no part of it."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.bundles import app
from serving.bundle.bundle import SIGNATURE, BadBundle, Bundle, verify
from serving.bundle.signature import BadKey, check_signature, load_signed, make_key, sign
from serving.worker.release import BadRelease, Release, checked
from tests.serving import tiny_bundle
from tests.serving.servers import free_port, tiny_options


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_tiny(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / packed.name))


def test_signing_changes_no_digest_and_a_server_takes_what_its_key_signed(bundle: Path, tmp_path: Path) -> None:
    before = verify(bundle)
    public = make_key(tmp_path / "keys" / "release")
    assert sign(bundle, tmp_path / "keys" / "release") == before == verify(bundle)
    assert load_signed(bundle, signed_by=public).digest == before
    assert stat.S_IMODE((tmp_path / "keys" / "release").stat().st_mode) == 0o600


def test_what_is_not_signed_or_signed_by_another_is_refused(bundle: Path, tmp_path: Path) -> None:
    ours = make_key(tmp_path / "ours")
    make_key(tmp_path / "theirs")
    with pytest.raises(BadBundle, match="is not signed: sign it"):
        load_signed(bundle, signed_by=ours)
    sign(bundle, tmp_path / "theirs")
    with pytest.raises(BadBundle, match=r"signed by no key of .*ours"):
        load_signed(bundle, signed_by=ours)
    assert load_signed(bundle, signed_by=tmp_path)  # one of several may sign
    assert Bundle.load(bundle)  # nobody asked who signed


@pytest.mark.parametrize("content", [b"", b"not base64!", b"AAAA", b"A" * 88])
def test_a_file_that_is_no_signature_is_refused(bundle: Path, tmp_path: Path, content: bytes) -> None:
    public = make_key(tmp_path / "key")
    (bundle / SIGNATURE).write_bytes(content)
    with pytest.raises(BadBundle):
        load_signed(bundle, signed_by=public)


def test_a_signature_is_of_one_content(bundle: Path, tmp_path: Path) -> None:
    public = make_key(tmp_path / "key")
    sign(bundle, tmp_path / "key")
    with pytest.raises(BadBundle, match="signed by no key"):
        check_signature(bundle, "sha256:" + "0" * 64, public)
    changed = next(path for path in sorted(bundle.rglob("*.npy")) if path.stat().st_size > 200)
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(BadBundle, match="was changed"):
        load_signed(bundle, signed_by=public)
    with pytest.raises(BadBundle, match="was changed"):
        load_signed(bundle, False, public)  # a signature of what was not hashed proves nothing
    with pytest.raises(BadBundle, match="was changed"):
        sign(bundle, tmp_path / "key")


def test_keys_are_told_from_other_files(bundle: Path, tmp_path: Path) -> None:
    public = make_key(tmp_path / "key")
    with pytest.raises(BadKey, match="exists"):
        make_key(tmp_path / "key")
    with pytest.raises(BadKey, match=r"no key .*missing: make one"):
        sign(bundle, tmp_path / "missing")
    with pytest.raises(BadKey, match="not a private key"):
        sign(bundle, public)
    sign(bundle, tmp_path / "key")
    with pytest.raises(BadKey, match="not a public key"):
        check_signature(bundle, verify(bundle), tmp_path / "key")
    with pytest.raises(BadKey, match="no public key"):
        check_signature(bundle, verify(bundle), tmp_path / "missing")


def test_a_release_that_nobody_we_know_signed_is_not_changed_to(bundle: Path, tmp_path: Path) -> None:
    ours = make_key(tmp_path / "ours")
    make_key(tmp_path / "theirs")
    for key in ("", "theirs"):
        if key:
            sign(bundle, tmp_path / key)
        with pytest.raises(BadRelease, match="signed"):
            checked(Release(str(bundle)), ours)
    sign(bundle, tmp_path / "ours")
    assert checked(Release(str(bundle)), ours).digest == verify(bundle)


def test_shortlist_serve_hands_the_key_on_and_its_workers_hold_the_bundle_against_it(bundle: Path, tmp_path: Path) -> None:
    public = make_key(tmp_path / "ours")
    begin = (
        "import sys; from pathlib import Path; from serving.worker.run import serve\n"
        "system, port, (bundle, users, home, key) = sys.argv[1], int(sys.argv[2]), map(Path, sys.argv[3:])\n"
        "serve(system, bundle, users, home, port=port, signed_by=key)"
    )
    line = [sys.executable, "-c", begin, tiny_bundle.SYSTEM_FILE, str(free_port()), bundle, tmp_path, tmp_path / "home", public]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "is not signed" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)
    worker = subprocess.run(
        [sys.executable, "-m", "serving", *tiny_options(tmp_path / "worker", signed_by=public, verify=False, port=free_port()).arguments()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (worker.returncode, "is not signed" in worker.stderr) == (1, True)


def test_the_commands_make_a_key_sign_and_verify(bundle: Path, tmp_path: Path) -> None:
    key, shell = tmp_path / "keys" / "release", CliRunner()
    assert shell.invoke(app, ["key", str(key)]).exit_code == 0
    unsigned = shell.invoke(app, ["verify", str(bundle), "--signed-by", f"{key}.pub"])
    assert isinstance(unsigned.exception, BadBundle)
    signed = shell.invoke(app, ["sign", str(bundle), "--key", str(key)])
    assert signed.stdout.strip() == verify(bundle)
    assert shell.invoke(app, ["verify", str(bundle), "--signed-by", f"{key}.pub"]).stdout == signed.stdout
