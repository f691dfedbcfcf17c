#!/usr/bin/env python3
"""Unpacks the LibTorch that Twinstill links from the Python wheel of torch.

The x86-64 wheel is the CUDA build, 900 MB; a CPU machine needs a few of its members. A wheel is a zip file, so
this reads its directory and those members by HTTP range requests and leaves the rest. Every file is checked
against the SHA-256 that the wheel's own RECORD gives, and RECORD against the sum pinned below.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

TORCH = "2.9.0"
# Wheels that libtorch_cpu.so of the CUDA build names libraries of: (package, version, the library).
NVIDIA_LIBRARIES = (
    ("nvidia-cuda-runtime-cu12", "12.8.90", "libcudart.so.12"),
    ("nvidia-cuda-cupti-cu12", "12.8.90", "libcupti.so.12"),
)

# SHA-256 of torch-2.9.0.dist-info/RECORD (cp311), which in turn names the sum of every other member.
RECORD_SHA256 = {
    "x86_64": "adf71f3c1d85856c4d9e3aac0a3fe3ed25ce9f75f679d1ac513c92849a8f6f8b",
    "aarch64": "824070ebab14363bf8616896a99b25777d90c772d76368d2f013a7b067f89b6d",
}

# libtorch_python, libtorch_global_deps and libshm serve the Python module only.
CPU_LIBRARIES = {
    "x86_64": {"torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1"},
    "aarch64": None,  # all of torch/lib and torch.libs, less the Python-only ones
}
PYTHON_ONLY = ("libtorch_python.so", "libtorch_global_deps.so", "libshm.so", "libtorch_cuda_linalg.so")


class HttpFile(io.RawIOBase):
    """A seekable, read-only view of a remote file, by range requests, with a few retries each."""

    BLOCK = 4 << 20

    def __init__(self, url: str) -> None:
        self.url = url
        self.position = 0
        self.cache: tuple[int, bytes] = (0, b"")
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=60) as reply:
            self.size = int(reply.headers["Content-Length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = (0, self.position, self.size)[whence] + offset
        return self.position

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            count = self.size - self.position
        out = bytearray()
        while count > 0 and self.position < self.size:
            start, data = self.cache
            if not start <= self.position < start + len(data):
                self._fill(self.position)
                start, data = self.cache
            piece = data[self.position - start : self.position - start + count]
            out += piece
            self.position += len(piece)
            count -= len(piece)
        return bytes(out)

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fill(self, start: int) -> None:
        end = min(start + self.BLOCK, self.size) - 1
        for attempt in range(6):
            try:
                request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-{end}"})
                with urllib.request.urlopen(request, timeout=120) as reply:
                    if reply.status != 206:
                        raise OSError(f"the package index does not serve ranges (HTTP {reply.status})")
                    data = reply.read()
                if len(data) == end - start + 1:
                    self.cache = (start, data)
                    return
                raise OSError(f"short answer: {len(data)} of {end - start + 1} bytes")
            except (OSError, urllib.error.URLError) as error:
                if attempt == 5:
                    raise SystemExit(f"fetch_libtorch: {error}") from error
                time.sleep(2**attempt)


def wheel_url(package: str, version: str, platform: str) -> str:
    """Asks pip, so that whatever index it is configured with answers."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps",
            "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--platform", platform,
            "--target", str(Path(scratch, "t")), "--report", str(report), f"{package}=={version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"fetch_libtorch: pip cannot find {package} {version}: {done.stderr.strip()[-400:]}")
        return json.loads(report.read_text())["install"][0]["download_info"]["url"]


def open_wheel(package: str, version: str, platform: str) -> zipfile.ZipFile:
    url = wheel_url(package, version, platform)
    if url.startswith("file:"):
        return zipfile.ZipFile(urllib.request.url2pathname(url[len("file://") :]))
    return zipfile.ZipFile(io.BufferedReader(HttpFile(url), buffer_size=1 << 20))


def sums(wheel: zipfile.ZipFile, pinned: str | None) -> dict[str, str]:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/RECORD"))
    record = wheel.read(name)
    found = hashlib.sha256(record).hexdigest()
    if pinned is not None and found != pinned:
        raise SystemExit(f"fetch_libtorch: {name} has SHA-256 {found}, expected {pinned}: not the wheel we know")
    rows = csv.reader(io.StringIO(record.decode()))
    return {row[0]: row[1] for row in rows if len(row) > 1 and row[1].startswith("sha256=")}


def extract(wheel: zipfile.ZipFile, member: str, target: Path, expected: dict[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    partial = target.with_name(target.name + ".part")
    with wheel.open(member) as source, open(partial, "wb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
    found = "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    if expected.get(member) != found:
        raise SystemExit(f"fetch_libtorch: {member} has {found}, its RECORD says {expected.get(member)}")
    if "/lib/" in member or "/torch.libs/" in f"/{member}":
        partial.chmod(0o755)
    os.replace(partial, target)


def wanted(arch: str, names: list[str], cuda: bool) -> list[str]:
    chosen = []
    for name in names:
        if name.startswith("torch/include/") and not name.endswith("/"):
            chosen.append(name)
        elif name.startswith(("torch/lib/", "torch.libs/")) and ".so" in name and not name.endswith(PYTHON_ONLY):
            only = None if cuda else CPU_LIBRARIES[arch]
            if only is None or name in only:
                chosen.append(name)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=sorted(RECORD_SHA256), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cuda", action="store_true", help="x86_64: the CUDA libraries of the wheel too (2.5 GB)")
    arguments = parser.parse_args()
    out: Path = arguments.out
    stamp = out / "twinstill-libtorch"
    kind = f"torch {TORCH} {arguments.arch}{' cuda' if arguments.cuda else ''}\n"
    if stamp.exists() and stamp.read_text() == kind:
        return

    print(f"fetch_libtorch: LibTorch {TORCH} for {arguments.arch} into {out} (once)")
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    wheel = open_wheel("torch", TORCH, f"manylinux_2_28_{arguments.arch}")
    expected = sums(wheel, RECORD_SHA256[arguments.arch])
    members = wanted(arguments.arch, wheel.namelist(), arguments.cuda)
    total = sum(wheel.getinfo(m).compress_size for m in members)
    done = 0
    reported = 0.0
    for member in sorted(members, key=lambda m: wheel.getinfo(m).header_offset):
        path = Path(member)
        # Both library folders go into one lib/, so that one rpath finds everything.
        target = partial / "lib" / path.name if path.parts[0] == "torch.libs" else partial / Path(*path.parts[1:])
        extract(wheel, member, target, expected)
        done += wheel.getinfo(member).compress_size
        if time.monotonic() - reported > 5 or done == total:
            reported = time.monotonic()
            print(f"fetch_libtorch: {done >> 20} of {total >> 20} MiB", flush=True)

    if arguments.arch == "x86_64" and not arguments.cuda:
        for package, version, library in NVIDIA_LIBRARIES:
            # Named by libtorch_cpu.so; nothing of them runs on a CPU.
            extra = open_wheel(package, version, "manylinux2014_x86_64")
            known = sums(extra, None)
            member = next(m for m in extra.namelist() if m.endswith("/" + library))
            extract(extra, member, partial / "lib" / library, known)
        # Whoever asks for libtorch.so gets the CPU library, so nothing asks for libtorch_cuda.so.
        os.symlink("libtorch_cpu.so", partial / "lib" / "libtorch.so")
    (partial / stamp.name).write_text(kind)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)


if __name__ == "__main__":
    main()
