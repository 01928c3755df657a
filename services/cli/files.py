"""Files that hold secrets or are shared with other programs: replaced in one step, private, locked. Used all over the CLI."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.common import errors


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replaces a file in one step: a reader sees the old content or the new, also after a crash. Raises Unavailable."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explain_os_error("write", path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, an empty one if there is no file. Raises Invalid for anything else."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise explain_os_error("read", path, error) from error
    except ValueError as error:
        raise errors.Invalid(f"{path} is not JSON ({error}): repair it, or delete it and it is made again") from error
    if not isinstance(document, dict):
        raise errors.Invalid(f"{path} does not hold a JSON object: delete it and it is made again")
    return document


def read_secret(path: Path) -> str:
    """A password or token from a file, `-` for stdin, without the newline that editors add. Raises Invalid when it is empty."""
    import sys

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except OSError as error:
        raise explain_os_error("read", path, error) from error
    except UnicodeDecodeError as error:
        raise errors.Invalid(f"{path} is not UTF-8 text") from error
    secret = text.rstrip("\r\n")
    if not secret:
        raise errors.Invalid(f"{path} is empty: write the password into it")
    return secret


def explain_os_error(verb: str, path: Path, error: OSError) -> errors.HerdsmanError:
    """The operating system's complaint as a sentence that says what to do."""
    advice = {
        errno.ENOSPC: "the disk is full: free some space and try again",
        errno.EDQUOT: "your disk quota is used up: free some space and try again",
        errno.EROFS: "it lies on a read-only file system: choose another place",
        errno.EACCES: "permission denied: choose a place that you may write to, or correct the owner",
        errno.EPERM: "permission denied: choose a place that you may write to, or correct the owner",
        errno.ENOENT: "there is no such file or folder",
        errno.ENOTDIR: "a part of the path is a file",
    }.get(error.errno or 0, error.strerror or str(error))
    return errors.Unavailable(f"cannot {verb} {path}: {advice}")


@contextlib.contextmanager
def lock_beside(path: Path, timeout_s: float = 5.0) -> Iterator[None]:
    """Holds `<path>.lock`, the very lock that kubectl and client-go take on a kubeconfig: the file exists = somebody writes."""
    lock = path.with_name(path.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError as error:
            if time.monotonic() >= deadline:
                raise errors.Timeout(
                    f"{lock} exists for more than {timeout_s:.0f} s: if no kubectl is running, delete it and try again"
                ) from error
            time.sleep(random.uniform(0.02, 0.1))
        except OSError as error:
            raise explain_os_error("lock", path, error) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
